// The watch page: the channel's picture when it is on air, what it had on before when it is not, and its chat.

import { api, get } from './api.js';
import { Access } from './access.js';
import { startChat } from './chat.js';
import { openClip } from './clip.js';
import { wireControls } from './controls.js';
import { $, el, poll, say, show } from './dom.js';
import { hue, plural, since } from './format.js';
import { Player } from './player.js';
import { here, session } from './session.js';
import { recordings } from './recordings.js';
import { wireSubscription } from './subscription.js';

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
  // Where it says more than the channel's name does.
  const owner = channel.owner_display_name;
  say($('#owner-name'), owner && owner.toLowerCase() !== name ? owner : null);
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
  drawSubscription(channel.subscription ?? null);
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

const drawSubscription = wireSubscription(base, lookAgain);

session.then((account) => {
  startChat(name, account, {
    onStanding({ user, badges, moderates }) {
      show($('#moderate'), moderates);
      if (user && badges.includes('broadcaster')) { show($('#subscribe'), false); show($('#follow'), false); }
    },
  });
});
