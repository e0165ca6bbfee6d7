// A channel's moderation page: the log, bans, modes and moderators. The server judges who may.

import { api, get, post } from './api.js';
import { $, el, onSubmit, say, show } from './dom.js';
import { moment, span } from './format.js';
import { here, session } from './session.js';

const name = $('#main').dataset.channel;
const base = `/api/v1/channels/${name}`;
const WORDS = {
  delete: 'deleted a message', timeout: 'timed out', ban: 'banned', unban: 'lifted the ban of', clear: 'cleared the chat', mode: 'changed the modes',
  mod: 'appointed', unmod: 'removed', raid: 'raided',
};
let next = null;

function details(entry) {
  const parts = [
    entry.duration_s && `for ${span(entry.duration_s)}`,
    entry.reason && `“${entry.reason}”`,
    entry.mode && Object.entries(entry.mode).filter(([, value]) => value).map(([mode, value]) => `${mode}: ${value}`).join(', '),
  ];
  return parts.filter(Boolean).join(' · ');
}

function row(entry) {
  const lifts = ['ban', 'timeout'].includes(entry.action)
    ? el('button', { class: 'button plain', type: 'button', onclick: () => act(() => api('DELETE', `${base}/bans/${entry.target}`)) }, 'Lift')
    : '';
  return el('tr', {},
    el('td', {}, moment(entry.at)),
    el('td', {}, entry.moderator ?? '–'),
    el('td', {}, WORDS[entry.action] ?? entry.action),
    el('td', {}, entry.target ?? ''),
    el('td', {}, details(entry)),
    el('td', {}, lifts));
}

async function load(cursor = null) {
  const page = await get(`${base}/moderation-log${cursor ? `?cursor=${encodeURIComponent(cursor)}` : ''}`);
  const rows = page.items.map(row);
  if (cursor) $('#log').append(...rows);
  else $('#log').replaceChildren(...rows);
  next = page.next;
  show($('#log-more'), Boolean(next));
  show($('#log-none'), !cursor && rows.length === 0);
}

async function act(work) {
  say($('#log-problem'), null);
  try {
    await work();
    await load();
  } catch (problem) {
    say($('#log-problem'), problem.message);
  }
}

onSubmit($('#ban'), async (form) => {
  const body = { username: form.get('username').trim() };
  if (form.get('duration_s')) body.duration_s = Number(form.get('duration_s'));
  if (form.get('reason')) body.reason = form.get('reason');
  await post(`${base}/bans`, body);
  $('#ban').reset();
  await load();
});

onSubmit($('#mode'), async (form) => {
  const followers = form.get('followers_only_min');
  await api('PATCH', `${base}/chat-mode`, {
    body: {
      slow_s: Number(form.get('slow_s')),
      followers_only_min: followers === '' ? null : Number(followers),
      subscribers_only: form.has('subscribers_only'),
      emote_only: form.has('emote_only'),
      unique: form.has('unique'),
    },
  });
  await load();
});

onSubmit($('#moderators'), async (form) => {
  const username = encodeURIComponent(form.get('username').trim());
  await api(form.get('act') === 'remove' ? 'DELETE' : 'PUT', `${base}/moderators/${username}`);
  $('#moderators').reset();
  await load();
});

onSubmit($('#clear'), async () => {
  if (!confirm('Clear the chat for everybody? What was said so far cannot be brought back.')) return;
  await api('DELETE', `${base}/chat`);
  await load();
});

async function modes() {
  const { chat_mode: mode } = await get(base);
  const form = $('#mode').elements;
  const choose = (select, value) => {
    if (![...select.options].some((option) => option.value === value)) select.append(el('option', { value }, value));
    select.value = value;
  };
  choose(form.slow_s, String(mode.slow_s ?? 0));
  choose(form.followers_only_min, String(mode.followers_only_min ?? ''));
  for (const flag of ['subscribers_only', 'emote_only', 'unique']) form[flag].checked = Boolean(mode[flag]);
}

$('#log-more').addEventListener('click', () => load(next));
if (await session) {
  modes().catch(() => null);
  await load().catch((problem) => say($('#log-problem'), problem.message));
} else location.replace(`/login?next=${here()}`);
