// How the broadcaster's stream is doing, as the server sends it every second; and what to do about it.

import { $, el, show } from './dom.js';

const TRACE_S = 120;
const bitrates = [];

const mbit = (bits) => `${(bits / 1e6).toFixed(bits < 1e7 ? 2 : 1)} Mb/s`;
const states = { live: 'Arriving', silent: 'Nothing arrives', interrupted: 'Interrupted' };

function facts(it) {
  const picture = it.video_codec && `${it.width}×${it.height}, ${it.frame_rate} of ${it.nominal_frame_rate ?? '?'} frames/s`;
  const renditions = it.renditions.length ? it.renditions.join(', ') : 'the source alone';
  const lag = it.transcoder_lag_s === null ? '' : `, ${it.transcoder_lag_s.toFixed(1)} s behind`;
  return [
    ['State', states[it.state] ?? it.state],
    ['Bitrate', mbit(it.bitrate)],
    ['Picture', picture ?? 'none'],
    ['Key frames', it.key_frame_interval_s === null ? '–' : `every ${it.key_frame_interval_s} s`],
    ['Late, missing', `${it.late_frames}, ${it.missing_frames} frames`],
    ['Renditions', renditions + lag],
    ['Codecs', [it.video_codec, it.audio_codec].filter(Boolean).join(', ')],
    ['Encoder', it.encoder || 'unknown'],
  ];
}

function trace() {
  const most = Math.max(...bitrates, 1);
  const from = TRACE_S - bitrates.length;
  const points = bitrates.map((bits, index) => `${from + index},${(39 - 37 * bits / most).toFixed(1)}`);
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
  line.setAttribute('points', points.join(' '));
  $('#stream-trace').replaceChildren(line);
  $('#stream-trace-caption').textContent = `Bitrate of the last two minutes, at most ${mbit(most)}`;
}

function draw(it) {
  show($('#stream'), it !== null);
  if (it === null) {
    bitrates.length = 0;
    return;
  }
  bitrates.push(it.bitrate);
  if (bitrates.length > TRACE_S) bitrates.shift();
  const advice = it.advice.map((one) => el('li', { 'data-code': one.code }, one.text));
  // Said again only when it is something else: it is read aloud.
  const said = JSON.stringify(it.advice);
  const list = $('#stream-advice');
  if (list.dataset.said !== said) {
    list.dataset.said = said;
    list.replaceChildren(...(advice.length ? advice : [el('li', { class: 'fine' }, 'All is well.')]));
  }
  $('#stream-facts').replaceChildren(...facts(it).flatMap(([term, value]) => [el('dt', {}, term), el('dd', {}, value)]));
  trace();
}

export function streamHealth(channel) {
  let source = null;
  // Nobody looks at a hidden page.
  const follow = () => {
    source?.close();
    if (document.hidden) return;
    source = new EventSource(`/api/v1/channels/${channel}/stream-health/feed`);
    source.addEventListener('health', (event) => draw(JSON.parse(event.data)));
    // A refusal ends an EventSource for good; a role that is started again answers 503 for a moment.
    source.addEventListener('error', () => { if (source.readyState === EventSource.CLOSED) setTimeout(follow, 5_000); });
  };
  document.addEventListener('visibilitychange', follow);
  follow();
}
