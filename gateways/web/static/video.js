// The pages of a recording, with its chat, and of a clip.

import { Access } from './access.js';
import { get } from './api.js';
import { wireControls } from './controls.js';
import { $, el, say, show } from './dom.js';
import { moment, plural } from './format.js';
import { Player } from './player.js';
import { Replay } from './replay.js';
import { here, session } from './session.js';

const main = $('#main');
const { id, kind } = main.dataset;
const FOR_SUBSCRIBERS = ['For subscribers only', 'Whoever subscribes to the channel can watch at once.'];
const video = $('#video');
const player = new Player(video, { live: false });
wireControls(player);

function curtain(text, more = null) {
  show($('#curtain'), Boolean(text));
  $('#curtain-text').textContent = text ?? '';
  say($('#curtain-more'), more);
}

player.addEventListener('state', ({ detail: { state } }) => {
  if (state === 'recovering') curtain('The recording cannot be reached. Trying again…');
  else if (state === 'unsupported') curtain('This browser cannot play the recording.');
  else curtain(null);
});

// `?t=95` starts there.
const at = Number(new URLSearchParams(location.search).get('t')) || -1;

async function about() {
  const found = await get(`/api/v1/${kind === 'clip' ? 'clips' : 'broadcasts'}/${id}`);
  $('#title').textContent = found.title || 'Untitled broadcast';
  document.title = `${found.title || 'Recording'} · Tallylight`;
  const owner = $('#owner');
  owner.textContent = found.channel ?? '';
  owner.href = `/${found.channel ?? ''}`;
  say($('#category'), found.category);
  const when = found.started_at ?? found.created_at;
  $('#when').textContent = [when && moment(when), found.total_views !== undefined && plural(found.total_views, 'view')].filter(Boolean).join(' · ');
  if (found.subscribers_only) await admitted(found.channel);
  if (kind === 'video') recording(found);
  else clip(found);
  return found;
}

// Raises what the API says to whoever may not play.
async function admitted(channel) {
  player.access = new Access(channel);
  await player.access.open();
  player.access.addEventListener('lost', () => { player.stop(); curtain(...FOR_SUBSCRIBERS); });
}

// Sets an address, and again whenever its token is another.
function addressed(set, url) {
  set(player.access?.address(url) ?? url);
  player.access?.addEventListener('renewed', () => set(player.access.address(url)));
}

function recording(found) {
  if (found.poster_url) video.poster = found.poster_url;
  if (found.storyboard_url) {
    const track = el('track', { kind: 'metadata', label: 'thumbnails', default: true });
    addressed((url) => { track.src = url; }, found.storyboard_url);
    video.append(track);
  }
  video.append(el('track', { kind: 'chapters', default: true, src: `/api/v1/broadcasts/${id}/chapters.vtt` }));
  show($('#clip'), Boolean(found.vod_url));
  $('#clip').addEventListener('click', async () => {
    if (!(await session)) { location.assign(`/login?next=${here()}`); return; }
    video.pause();
    const { openClip } = await import('./clip.js');
    openClip({ broadcastId: id, source: found.vod_url, title: found.title, endsAt: Math.min(video.currentTime + 15, video.duration), access: player.access });
  });
}

// Its playlist begins where the clip does; where it ends is ours to heed: a segment may go on.
function clip(found) {
  addressed((url) => { $('#download').href = url; }, found.download_url);
  show($('#download'));
  $('#whole').href = `/videos/${found.broadcast_id}?t=${Math.floor(found.start_s)}`;
  show($('#whole'));
  let from = null;
  video.addEventListener('playing', () => { from ??= video.currentTime; }, { once: true });
  video.addEventListener('timeupdate', () => {
    if (from === null) return;
    if (video.currentTime < from - 0.05) video.currentTime = from;
    if (video.currentTime >= from + found.duration_s && !video.paused) { video.pause(); video.currentTime = from; }
  });
}

const fallback = kind === 'clip' ? `/clips/${id}/index.m3u8` : `/vod/${id}/index.m3u8`;
about().then(
  (found) => player.start((kind === 'clip' ? found.playback_url : found.vod_url) ?? fallback, { at }),
  (problem) => {
    if (problem.status === 404) curtain('There is no such recording', 'It may have been deleted.');
    else if (problem.status === 401 || problem.status === 403) curtain(...FOR_SUBSCRIBERS);
    else player.start(fallback, { at }); // the picture does not wait for its title
  },
);
if (kind === 'video') new Replay(video, id);
