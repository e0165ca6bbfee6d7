// A person's own page: how they are shown, what they follow and pay for, and how they leave for good.

import { api, remembered } from './api.js';
import { $, el, onSubmit, say, show } from './dom.js';
import { day } from './format.js';
import { list } from './list.js';
import { here, logOut, session } from './session.js';
import { described } from './subscription.js';

const ME = '/api/v1/accounts/me';

const follows = list({ path: `${ME}/follows`, into: $('#follows'), none: $('#follows-none'), more: $('#follows-more'), row: followed });
const subscriptions = list({
  path: `${ME}/subscriptions`, into: $('#subscriptions'), none: $('#subscriptions-none'), more: $('#subscriptions-more'), row: subscribed,
});

function followed(item) {
  return el('li', {},
    el('p', {}, el('a', { href: `/${item.channel}` }, item.channel), item.is_live && el('span', { class: 'on-air' }, 'Live')),
    el('span', { class: 'muted' }, item.title || `since ${day(item.since)}`),
    act('Unfollow', item.channel, $('#follows-problem'), () => api('DELETE', `/api/v1/channels/${item.channel}/follow`), follows));
}

function subscribed(item) {
  const at = `/api/v1/subscriptions/${item.id}`;
  return el('li', {},
    el('p', {}, el('a', { href: `/${item.channel}` }, item.channel)),
    el('span', { class: 'muted' }, described(item)),
    !item.cancelled && act('Cancel', item.channel, $('#subscriptions-problem'), () => api('DELETE', at), subscriptions));
}

function act(label, channel, problem, work, reload) {
  return el('button', {
    class: 'button quiet',
    type: 'button',
    'aria-label': `${label} ${channel}`,
    onclick: async (event) => {
      const button = event.currentTarget;
      button.disabled = true;
      say(problem, null);
      try {
        await work();
        await reload();
      } catch (fault) {
        say(problem, fault.message);
        button.disabled = false;
      }
    },
  }, label);
}

onSubmit($('#name'), async (form) => {
  say($('#name-done'), null);
  const wanted = form.get('display_name').trim();
  await api('PATCH', ME, { body: { display_name: wanted } });
  say($('#name-done'), 'Saved.');
  const shown = $('#account .who');
  if (shown) shown.textContent = wanted;
});
$('#name').addEventListener('input', () => say($('#name-done'), null));

onSubmit($('#erase'), async (form) => {
  if (form.get('username').trim().toLowerCase() !== account.username) throw new Error(`Type ${account.username} to be sure.`);
  await api('DELETE', ME);
  remembered.user = null;
  location.assign('/');
});

$('#log-out').addEventListener('click', logOut);

const account = await session;
if (account) {
  $('#username').textContent = account.username;
  $('#display-name').value = account.display_name ?? account.username;
  show($('#settings'));
  follows().catch((problem) => say($('#follows-problem'), problem.message));
  subscriptions().catch((problem) => say($('#subscriptions-problem'), problem.message));
} else location.replace(`/login?next=${here()}`);
