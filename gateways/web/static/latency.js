// Keeps a live picture near the edge by playing a little faster. hls.js can do this too, but only while more than a second lies
// buffered ahead, which a player that aims below a second behind the edge never has: it would stay wherever its join landed.

export const TARGET_S = 0.75;
export const ON_STALL_S = 0.25; // a connection that stalls gets more room, up to a target duration
export const RATE_MAX = 1.5;
const NEAR_ENOUGH_S = 0.12;
const BUFFER_S_MIN = 0.45; // two parts less a little: below this, faster would mean a stall
const GAIN = 0.25; // 0.4 s too far behind plays at 1.1

export function rateFor(excessS, bufferS) {
  if (excessS <= NEAR_ENOUGH_S || bufferS <= BUFFER_S_MIN) return 1;
  return Math.min(RATE_MAX, Math.round((1 + excessS * GAIN) * 20) / 20);
}

export function aheadOf(video) {
  const { buffered, currentTime } = video;
  for (let i = 0; i < buffered.length; i += 1) {
    if (buffered.start(i) <= currentTime && currentTime < buffered.end(i)) return buffered.end(i) - currentTime;
  }
  return 0;
}

export function keepClose(video, hls) {
  if (video.paused || hls.targetLatency === null || !hls.latency) return;
  const rate = rateFor(hls.latency - hls.targetLatency, aheadOf(video));
  if (video.playbackRate !== rate) video.playbackRate = rate;
}
