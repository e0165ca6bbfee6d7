// A channel's moderation page: who is silenced, modes, moderators and the log. The server judges who may.

import { api, get, post } from './api.js';
import { $, el, onSubmit, say, show } from './dom.js';
import { day, moment, span } from './format.js';
import { list } from './list.js';
import { here, session } from './session.js';

const name = $('#main').dataset.channel;
const base = `/api/v1/channels/${name}`;
const WORDS = {
  delete: 'deleted a message', timeout: 'timed out', ban: 'banned', unban: 'lifted the ban of', clear: 'cleared the chat', mode: 'changed the modes',
  mod: 'appointed', unmod: 'removed', raid: 'raided',
};

function details(entry) {
  const parts = [
    entry.duration_s && `for ${span(entry.duration_s)}`,
    entry.reason && `“${entry.reason}”`,
    entry.mode && Object.entries(entry.mode).filter(([, value]) => value).map(([mode, value]) => `${mode}: ${value}`).join(', '),
  ];
  return parts.filter(Boolean).join(' · ');
}

function row(entry) {
  return el('tr', {},
    el('td', {}, moment(entry.at)),
    el('td', {}, entry.moderator ?? '–'),
    el('td', {}, WORDS[entry.action] ?? entry.action),
    el('td', {}, entry.target ?? ''),
    el('td', {}, details(entry)));
}

function silenced(ban) {
  const how = [ban.until ? `until ${moment(ban.until)}` : 'until lifted', `by ${ban.moderator}`, ban.reason && `“${ban.reason}”`];
  return el('li', {},
    el('strong', {}, ban.username),
    el('span', { class: 'muted' }, how.filter(Boolean).join(' · ')),
    act('Lift', ban.username, $('#bans-problem'), `${base}/bans/${ban.username}`));
}

function appointed(moderator) {
  return el('li', {},
    el('strong', {}, moderator.username),
    el('span', { class: 'muted' }, `since ${day(moderator.since)}`),
    act('Remove', moderator.username, $('#moderators-problem'), `${base}/moderators/${moderator.username}`));
}

const log = list({ path: `${base}/moderation-log`, into: $('#log'), none: $('#log-none'), more: $('#log-more'), row });
const bans = list({ path: `${base}/bans`, into: $('#bans'), none: $('#bans-none'), more: $('#bans-more'), row: silenced });
const moderators = list({
  path: `${base}/moderators`, into: $('#moderators'), none: $('#moderators-none'), more: $('#moderators-more'), row: appointed,
});
const load = () => Promise.all([log(), bans(), moderators()]);

function act(label, username, problem, path) {
  return el('button', {
    class: 'button quiet',
    type: 'button',
    'aria-label': `${label} ${username}`,
    onclick: async (event) => {
      const button = event.currentTarget;
      button.disabled = true;
      say(problem, null);
      try {
        await api('DELETE', path);
        await load();
      } catch (fault) {
        say(problem, fault.message);
        button.disabled = false;
      }
    },
  }, label);
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

onSubmit($('#appoint'), async (form) => {
  await api('PUT', `${base}/moderators/${encodeURIComponent(form.get('username').trim())}`);
  $('#appoint').reset();
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

if (await session) {
  modes().catch(() => null);
  await load().catch((problem) => say($('#log-problem'), problem.message));
} else location.replace(`/login?next=${here()}`);
