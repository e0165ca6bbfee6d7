// The directory: who is live, by category, and the search over all channels.

import { get } from './api.js';
import { $, el, poll, say, show } from './dom.js';
import { count, hue, plural, since } from './format.js';
import './session.js';

const EVERY_MS = 10_000;
const query = new URLSearchParams(location.search);
const category = query.get('category') ?? '';
let extra = []; // pages behind the first one, as long as somebody asked for them
let next = null;

const live = $('#live');

function tile(item) {
  const picture = el('div', { class: 'picture' },
    el('span', { class: 'initial', 'aria-hidden': 'true' }, item.channel.slice(0, 1)),
    el('span', { class: 'on-air' }, 'Live'),
    el('span', { class: 'viewers' }, plural(item.viewers ?? 0, 'viewer')),
    item.started_at ? el('span', { class: 'uptime', title: 'On air for' }, since(item.started_at)) : null);
  picture.style.setProperty('--hue', hue(item.channel));
  return el('li', { class: 'tile' },
    el('a', { href: `/${item.channel}` },
      picture,
      el('strong', { class: 'title' }, item.title || 'Untitled broadcast'),
      el('span', { class: 'channel' }, item.channel),
      item.category ? el('span', { class: 'category' }, item.category) : null));
}

function address(cursor) {
  const wanted = new URLSearchParams();
  if (category) wanted.set('category', category);
  if (cursor) wanted.set('cursor', cursor);
  return `/api/v1/channels/live?${wanted}`;
}

async function refresh() {
  try {
    const page = await get(address());
    const known = new Set(page.items.map((item) => item.channel));
    const items = [...page.items, ...extra.filter((item) => !known.has(item.channel))];
    if (!extra.length) next = page.next;
    live.replaceChildren(...items.map(tile));
    show($('#live-none'), items.length === 0);
    show($('#live-more'), Boolean(next));
    say($('#live-problem'), null);
  } catch (problem) {
    say($('#live-problem'), problem.message);
    throw problem;
  } finally {
    live.setAttribute('aria-busy', 'false');
  }
}

$('#live-more').addEventListener('click', async () => {
  const page = await get(address(next));
  next = page.next;
  extra = extra.concat(page.items);
  await refresh();
});

async function categories() {
  const { items } = await get('/api/v1/categories?limit=100');
  const names = items.map((item) => item.name ?? item).filter(Boolean);
  if (category && !names.includes(category)) names.unshift(category);
  const link = (name, label) => el('a', {
    class: 'chip', href: name ? `/?category=${encodeURIComponent(name)}` : '/', 'aria-current': name === category ? 'true' : null,
  }, label);
  if (names.length) $('#categories').replaceChildren(link('', 'All'), ...names.map((name) => link(name, name)));
}

async function search(wanted) {
  $('#q').value = wanted;
  $('#found-query').textContent = wanted;
  const { items } = await get(`/api/v1/search?q=${encodeURIComponent(wanted)}`);
  const rows = items.map((item) => {
    const name = item.channel ?? item.name;
    return el('li', {}, el('a', { href: `/${name}` },
      el('strong', {}, name),
      el('span', { class: 'muted' }, item.title || ''),
      item.is_live ? el('span', { class: 'on-air' }, 'Live') : null,
      item.follower_count === undefined ? null : el('span', { class: 'muted' }, `${count(item.follower_count)} followers`)));
  });
  $('#found-list').replaceChildren(...(rows.length ? rows : [el('li', { class: 'muted' }, 'No channel matches.')]));
  show($('#found'));
}

poll(refresh, () => EVERY_MS)();
categories().catch(() => null);
if (query.get('q')) search(query.get('q')).catch((problem) => say($('#live-problem'), problem.message));
