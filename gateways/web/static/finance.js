// The trial balance, for people with the finance role; the server judges who has it.

import { get } from './api.js';
import { $, el, onSubmit, say, show } from './dom.js';
import { money } from './format.js';
import { here, session } from './session.js';

function draw(items) {
  const currencies = [...new Set(items.map((item) => item.currency))].sort();
  const amount = (minor, currency) => el('td', { class: 'amount' }, minor ? money(minor, currency) : '');
  const rows = items.map((item) => el('tr', {},
    el('td', {}, item.account), el('td', {}, item.currency), amount(item.debit_minor, item.currency), amount(item.credit_minor, item.currency)));
  const totals = currencies.map((currency) => {
    const sum = (side) => items.filter((item) => item.currency === currency).reduce((total, item) => total + (item[side] ?? 0), 0);
    const [debit, credit] = [sum('debit_minor'), sum('credit_minor')];
    return el('tr', {}, el('td', {}, debit === credit ? 'Total' : 'Total: does not balance'), el('td', {}, currency),
      el('td', { class: 'amount' }, money(debit, currency)), el('td', { class: 'amount' }, money(credit, currency)));
  });
  $('#balance').replaceChildren(...rows);
  $('#totals').replaceChildren(...totals);
  show($('#balance-none'), items.length === 0);
}

async function load(asOf) {
  // A day as this person's calendar has it, to its end.
  const query = asOf ? `?${new URLSearchParams({ as_of: new Date(`${asOf}T23:59:59.999`).toISOString() })}` : '';
  const answer = await get(`/api/v1/finance/trial-balance${query}`);
  draw(answer.items);
}

onSubmit($('#as-of'), (form) => load(form.get('as_of')));
if (await session) await load().catch((problem) => say($('#as-of .problem'), problem.message));
else location.replace(`/login?next=${here()}`);
