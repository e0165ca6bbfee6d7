// What the player's bar shows beyond the library's own buttons: quality, sound, and how far behind live it is.

import { $, el, show } from './dom.js';

const READOUT_MS = 500;
const BEHIND_S = 3;

export function wireControls(player) {
  const [quality, unmute, toLive, latency] = ['#quality', '#unmute', '#to-live', '#latency'].map((id) => $(id));
  const { video } = player;

  player.addEventListener('levels', () => {
    const name = (level) => (level.height ? `${level.height}p` : `${Math.round(level.bitrate / 1000)} kb/s`);
    const options = player.levels.map((level, index) => [index, name(level), level.height ?? 0]).sort((a, b) => b[2] - a[2]);
    quality.replaceChildren(el('option', { value: -1 }, 'Auto'), ...options.map(([index, label]) => el('option', { value: index }, label)));
    show(quality, options.length > 1);
  });
  quality.addEventListener('change', () => { player.quality = Number(quality.value); });

  player.addEventListener('muted', () => show(unmute));
  unmute.addEventListener('click', () => { video.muted = false; show(unmute, false); player.play(); });
  video.addEventListener('volumechange', () => { if (!video.muted) show(unmute, false); });

  if (!toLive) return;
  toLive.addEventListener('click', () => player.toLiveEdge());
  setInterval(() => {
    const behind = player.latency;
    latency.textContent = behind === null ? '' : `${behind.toFixed(1)} s behind`;
    toLive.classList.toggle('at-edge', behind !== null && !video.paused && behind < BEHIND_S);
  }, READOUT_MS);
}
