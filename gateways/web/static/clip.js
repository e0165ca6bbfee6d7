// The dialog in which a clip is taken: where it begins and ends, to the frame, out of the last minutes of what is on or of a recording.

import { post } from './api.js';
import { randomName } from './chat_socket.js';
import { $, onSubmit, say } from './dom.js';
import { clock } from './format.js';
import { Player } from './player.js';

const FRAME_S = 1 / 30;
const LONGEST_S = 60;
const SHORTEST_S = 1;
const WINDOW_S = 120; // what the sliders span
const FIRST_S = 30;

const dialog = $('#clip-dialog');
const video = $('#clip-video');
const begins = $('#clip-in');
const ends = $('#clip-out');
let player = null;
let wanted = null; // what it is of, and the key that makes pressing twice take one clip

// A time of the player's as a date, by the segment it lies in: what a live clip is named by.
function dateAt(seconds) {
  const details = player.hls?.latestLevelDetails ?? player.hls?.levels[player.hls.currentLevel]?.details;
  const fragments = details?.fragments ?? [];
  const found = fragments.findLast((it) => it.start <= seconds) ?? fragments[0];
  return found?.programDateTime ? new Date(found.programDateTime + (seconds - found.start) * 1000).toISOString() : null;
}

const exact = (seconds) => `${clock(Math.max(0, seconds))}.${String(Math.floor(Math.max(0, seconds) * 100) % 100).padStart(2, '0')}`;

function told() {
  const [from, to] = [Number(begins.value), Number(ends.value)];
  const length = to - from;
  $('#clip-in-at').textContent = exact(from);
  $('#clip-out-at').textContent = exact(to);
  const fits = length >= SHORTEST_S && length <= LONGEST_S + FRAME_S / 2;
  $('#clip-length').textContent = `${length.toFixed(2)} s${fits ? '' : `: a clip lasts ${SHORTEST_S} to ${LONGEST_S} s`}`;
  $('[type="submit"]', dialog).disabled = !fits;
}

function moved(side) {
  video.pause();
  // The other end comes along rather than stand in the way.
  if (side === begins) ends.value = Math.min(Math.max(Number(ends.value), Number(begins.value) + SHORTEST_S), Number(begins.value) + LONGEST_S);
  else begins.value = Math.max(Math.min(Number(begins.value), Number(ends.value) - SHORTEST_S), Number(ends.value) - LONGEST_S);
  video.currentTime = side === begins ? Number(begins.value) : Number(ends.value) - FRAME_S;
  wanted.key = randomName();
  told();
}

for (const side of [begins, ends]) side.addEventListener('input', () => moved(side));
for (const button of dialog.querySelectorAll('[data-step]')) {
  const side = button.dataset.step === 'in' ? begins : ends;
  button.addEventListener('click', () => {
    side.value = Number(side.value) + Number(button.dataset.frames) * FRAME_S;
    moved(side);
  });
}
$('#clip-play').addEventListener('click', () => { video.currentTime = Number(begins.value); video.play(); });
video.addEventListener('timeupdate', () => { if (!video.paused && video.currentTime >= Number(ends.value)) video.pause(); });
$('#clip-close').addEventListener('click', () => dialog.close());
dialog.addEventListener('close', () => { player?.stop(); player = null; });

// `byDate`: what is on, whose times are dates; else seconds of the recording. `endsAt`: where the clip ends at first.
export function openClip({ broadcastId, source, title = '', byDate = false, endsAt = null, access = null }) {
  wanted = { broadcastId, byDate, key: randomName() };
  $('#clip-name').value = title;
  say($('.problem', dialog), null);
  $('[type="submit"]', dialog).disabled = true;
  dialog.showModal();
  player = new Player(video, { live: false, access });
  video.addEventListener('loadeddata', () => {
    video.pause();
    const { seekable } = video;
    const last = seekable.length ? seekable.end(seekable.length - 1) : video.duration;
    const first = seekable.length ? seekable.start(0) : 0;
    const to = Math.min(endsAt ?? last - 1, last);
    for (const side of [begins, ends]) {
      side.min = Math.max(first, to - WINDOW_S);
      side.max = Math.min(last, to + WINDOW_S / 2);
    }
    ends.value = to;
    begins.value = Math.max(Number(begins.min), to - FIRST_S);
    moved(begins);
  }, { once: true });
  player.start(source, { at: endsAt ?? -1 });
}

onSubmit($('#clip-form'), async (form) => {
  const [from, to] = [Number(begins.value), Number(ends.value)];
  const range = wanted.byDate ? { start_at: dateAt(from), end_at: dateAt(to) } : { start_s: from, end_s: to };
  const path = `/api/v1/broadcasts/${wanted.broadcastId}/clips`;
  const made = await post(path, { ...range, title: form.get('title') }, { headers: { 'Idempotency-Key': wanted.key } });
  location.assign(`/clips/${made.id}`);
});
