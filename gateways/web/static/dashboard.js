// The broadcaster's page: open a channel, what to type into OBS, what the channel is called, and whether it is on air.

import { api, get, post } from './api.js';
import { $, el, onSubmit, poll, say, show } from './dom.js';
import { moment, plural, since } from './format.js';
import { recordings } from './recordings.js';
import { here, session } from './session.js';
import { streamHealth } from './stream_health.js';

const EVERY_MS = 5_000;
let name = null;
let edited = false;

async function categories() {
  const { items } = await get('/api/v1/categories?limit=100');
  $('#category-names').replaceChildren(...items.map((item) => el('option', { value: item.name ?? item })));
}

// -- before there is a channel ---------------------------------------------------------------------------------------

onSubmit($('#open'), async (form) => {
  const wanted = form.get('name').trim().toLowerCase();
  await post('/api/v1/channels', { name: wanted, title: form.get('title'), category: form.get('category') });
  await begin(wanted);
});

// -- the channel -----------------------------------------------------------------------------------------------------

const path = () => `/api/v1/channels/${name}`;

async function draw() {
  const channel = await get(path());
  show($('#state-live'), channel.is_live);
  show($('#state-offline'), !channel.is_live);
  $('#state-viewers').textContent = channel.is_live ? plural(channel.current_viewers ?? 0, 'viewer') : '–';
  $('#state-since').textContent = channel.is_live && channel.started_at ? since(channel.started_at) : '–';
  $('#state-followers').textContent = `${plural(channel.follower_count ?? 0, 'follower')}, ${plural(channel.subscriber_count ?? 0, 'subscriber')}`;
  if (edited) return;
  $('#edit-title').value = channel.title ?? '';
  $('#edit-category').value = channel.category ?? '';
  $('#edit-tags').value = (channel.tags ?? []).join(', ');
  $('#edit-closed').checked = Boolean(channel.subscribers_only_playback);
}

const edit = $('#edit');
edit.addEventListener('input', () => { edited = true; say($('#edit-done'), null); });
onSubmit(edit, async (form) => {
  const tags = form.get('tags').split(',').map((tag) => tag.trim()).filter(Boolean);
  const body = { title: form.get('title'), category: form.get('category'), tags, subscribers_only_playback: form.has('closed') };
  await api('PATCH', path(), { body });
  edited = false;
  say($('#edit-done'), 'Saved.');
});

onSubmit($('#key'), async () => {
  const { stream_key: key, rtmp_url: rtmp, srt_url: srt } = await post(`${path()}/stream-key`);
  $('#key-value').value = key;
  $('#rtmp').textContent = rtmp;
  if (srt) $('#srt').textContent = srt;
  show($('#srt-term'), Boolean(srt));
  show($('#srt'), Boolean(srt));
  show($('#key-shown'));
  $('#key-button').textContent = 'Make a new key';
});
$('#key-copy').addEventListener('click', async () => {
  const field = $('#key-value');
  try {
    await navigator.clipboard.writeText(field.value);
    $('#key-copy').textContent = 'Copied';
  } catch { // not a secure origin: select it for the person's own copy
    field.type = 'text';
    field.select();
  }
});
$('#key-reveal').addEventListener('click', () => {
  const field = $('#key-value');
  field.type = field.type === 'password' ? 'text' : 'password';
  $('#key-reveal').textContent = field.type === 'password' ? 'Show' : 'Hide';
});

async function past() {
  const { items } = await get(`${path()}/broadcasts`);
  const tiles = recordings(items, name, acts);
  $('#past-list').replaceChildren(...tiles);
  show($('#past'), tiles.length > 0);
  const last = items.find((item) => item.ended_at);
  $('#state-last').textContent = last ? moment(last.started_at) : 'never';
}

function acts(item) {
  const act = (label, work) => el('button', {
    class: 'button quiet',
    type: 'button',
    onclick: async (event) => {
      event.target.disabled = true;
      say($('#past-problem'), null);
      await work().catch((problem) => say($('#past-problem'), problem.message));
      await past();
    },
  }, label);
  const at = `/api/v1/broadcasts/${item.id}`;
  const asked = () => confirm(`Delete the recording “${item.title || 'Untitled broadcast'}” for good? Its clips stay.`);
  return el('div', { class: 'acts' },
    act(item.published ? 'Hide' : 'Show', () => api('PATCH', at, { body: { published: !item.published } })),
    act('Delete', async () => { if (asked()) await api('DELETE', at); }),
    !item.published && el('span', { class: 'hidden-mark' }, 'Hidden'));
}

async function begin(found) {
  name = found;
  show($('#open-card'), false);
  show($('#channel'));
  $('#channel-name').textContent = name;
  for (const link of document.querySelectorAll('[data-watch]')) link.href = `/${name}`;
  $('#moderation-link').href = `/moderation/${name}`;
  streamHealth(name);
  await Promise.all([poll(draw, () => EVERY_MS)(), past().catch(() => null)]);
}

const account = await session;
if (!account) location.replace(`/login?next=${here()}`);
else {
  categories().catch(() => null);
  const [first] = account.channels ?? [];
  if (first) await begin(first.name);
  else {
    $('#open-name').value = account.username;
    show($('#open-card'));
  }
}
