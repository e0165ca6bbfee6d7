// The watch page: the channel's picture when it is on air, what it had on before when it is not, and its chat.

import { Access } from './access.js';
import { api, get, post } from './api.js';
import { startChat } from './chat.js';
import { randomName } from './chat_socket.js';
import { openClip } from './clip.js';
import { wireControls } from './controls.js';
import { $, el, onSubmit, poll, say, show } from './dom.js';
import { hue, money, plural, since } from './format.js';
import { Player } from './player.js';
import { here, session } from './session.js';
import { recordings } from './recordings.js';

const LIVE_MS = 10_000; // viewer counts move every 10 s
const OFFLINE_MS = 4_000;
const name = $('#main').dataset.channel;
const base = `/api/v1/channels/${name}`;

let channel = null;
let following = false;
const video = $('#video');
const access = new Access(name);
const player = new Player(video, { live: true, access });
wireControls(player);
$('#face').style.setProperty('--hue', hue(name));

// -- what is on ----------------------------------------------------------------------------------------------------

const onAir = () => Boolean(channel?.is_live);

function curtain(text, more = null) {
  show($('#curtain'), Boolean(text));
  $('#curtain-text').textContent = text ?? '';
  say($('#curtain-more'), more);
}

function draw() {
  $('#title').textContent = channel.title || name;
  document.title = `${onAir() ? '● ' : ''}${channel.title || name} · ${name} · Tallylight`;
  const category = $('#category');
  category.textContent = channel.category ?? '';
  category.href = `/?category=${encodeURIComponent(channel.category ?? '')}`;
  show(category, Boolean(channel.category));
  $('#tags').replaceChildren(...(channel.tags ?? []).map((tag) => el('span', { class: 'tag' }, tag)));
  show($('#on-air'), onAir());
  show($('#off-air'), !onAir());
  say($('#viewers'), onAir() ? plural(channel.current_viewers ?? 0, 'viewer') : null);
  say($('#uptime'), onAir() && channel.started_at ? since(channel.started_at) : null);
  say($('#followers'), `${plural(channel.follower_count ?? 0, 'follower')} · ${plural(channel.subscriber_count ?? 0, 'subscriber')}`);
}

async function look() {
  try {
    channel = await get(base);
  } catch (problem) {
    if (problem.status === 404) return missing();
    if (!channel) curtain(problem.message);
    throw problem;
  }
  if (typeof channel.following === 'boolean') drawFollow(channel.following);
  if (channel.subscription) subscribed();
  show($('#clip'), onAir());
  draw();
  if (onAir() && !(await mayPlay())) {
    player.stop();
    player.state = 'idle';
    curtain('For subscribers only', 'Whoever subscribes can watch at once.');
  } else if (onAir() && ['idle', 'ended'].includes(player.state)) {
    player.start(channel.playback_url ?? `/live/${name}/index.m3u8`);
  } else if (!onAir() && ['idle', 'ended'].includes(player.state)) {
    offline();
  } else if (!onAir() && player.state === 'recovering') {
    player.stop();
    offline();
  }
}

async function mayPlay() {
  if (!channel.subscribers_only_playback || access.isOpen) return true;
  try {
    await access.open();
    return true;
  } catch (problem) {
    if (problem.status !== 401 && problem.status !== 403) throw problem;
    return false;
  }
}
access.addEventListener('lost', () => lookAgain());

let shownPast = false;
let played = false;
async function offline() {
  player.state = 'idle';
  curtain(`${name} is offline`, 'The broadcast starts here by itself.');
  if (shownPast) return;
  shownPast = true;
  await drawPast();
}

async function drawPast() {
  const { items } = await get(`${base}/broadcasts`).catch(() => ({ items: [] }));
  const tiles = recordings(items, name);
  $('#past-list').replaceChildren(...tiles);
  show($('#past'), tiles.length > 0);
}

function missing() {
  curtain('There is no such channel', `Nobody has opened “${name}” yet.`);
  for (const id of ['#follow', '#subscribe', '.chat']) show($(id), false);
}

player.addEventListener('state', ({ detail: { state } }) => {
  if (state === 'playing') {
    played = true;
    curtain(null);
  } else if (state === 'loading') curtain('Starting…');
  else if (state === 'recovering') curtain(played ? 'The picture stopped. Reconnecting…' : 'Starting…');
  else if (state === 'unsupported') curtain('This browser cannot play the broadcast.');
  else if (state === 'ended') {
    curtain('The broadcast has ended');
    shownPast = false;
    lookAgain();
  }
});

const lookAgain = poll(look, () => (onAir() && player.state !== 'recovering' ? LIVE_MS : OFFLINE_MS));
lookAgain();
drawPast();
setInterval(() => { if (onAir() && channel.started_at) say($('#uptime'), since(channel.started_at)); }, 1000);

// -- what one may do -------------------------------------------------------------------------------------------------

const logInFirst = () => location.assign(`/login?next=${here()}`);

function drawFollow(value) {
  following = value;
  const button = $('#follow');
  button.textContent = following ? 'Following' : 'Follow';
  button.ariaPressed = String(following);
}

$('#follow').addEventListener('click', async () => {
  if (!(await session)) { logInFirst(); return; }
  const wanted = !following;
  drawFollow(wanted);
  say($('#act-problem'), null);
  try {
    await api(wanted ? 'PUT' : 'DELETE', `${base}/follow`);
    await lookAgain();
  } catch (problem) {
    drawFollow(!wanted);
    if (problem.status === 401) logInFirst();
    else say($('#act-problem'), problem.message);
  }
});

// What was just on, up to a minute of it; the dialog looks at the rewindable playlist, the page plays on.
$('#clip').addEventListener('click', async () => {
  if (!(await session)) { logInFirst(); return; }
  openClip({ broadcastId: channel.broadcast_id, source: `/live/${name}/dvr.m3u8`, byDate: true, title: channel.title, access });
});

const tiers = $('#tiers');
let purchase = null; // one purchase, however often its button is pressed or its answer lost
$('#subscribe').addEventListener('click', async () => {
  if (!(await session)) { logInFirst(); return; }
  purchase = randomName();
  tiers.showModal();
});
$('#tiers-close').addEventListener('click', () => tiers.close());
$('#tiers-form').addEventListener('change', () => { purchase = randomName(); });
for (const price of tiers.querySelectorAll('[data-minor]')) price.textContent = money(price.dataset.minor, price.dataset.currency);
onSubmit($('#tiers-form'), async (form) => {
  await post(`${base}/subscriptions`, { tier: Number(form.get('tier')) }, { headers: { 'Idempotency-Key': purchase } }).catch((problem) => {
    if (problem.code !== 'already_subscribed') throw problem;
  });
  tiers.close();
  subscribed();
  await lookAgain();
});

function subscribed() {
  const button = $('#subscribe');
  button.textContent = 'Subscribed';
  button.disabled = true;
}

session.then((account) => {
  startChat(name, account, {
    onStanding({ user, badges, moderates }) {
      show($('#moderate'), moderates);
      if (badges.includes('subscriber')) subscribed();
      if (user && badges.includes('broadcaster')) { show($('#subscribe'), false); show($('#follow'), false); }
    },
  });
});
