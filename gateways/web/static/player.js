// Plays one address in a <video>: live at low latency with hls.js, or a recording. Used by the watch, video and clip pages.
//
// A `state` event tells what to show: idle, loading, playing, recovering, ended, unsupported. A player that fails comes back by
// itself, however often, waiting longer each time up to BACK_OFF_MS_MAX; only its page decides that nothing is on air.

import { aheadOf, keepClose, ON_STALL_S, TARGET_S } from './latency.js';
import { viewer } from './viewer.js';

const BACK_OFF_MS = 500;
const BACK_OFF_MS_MAX = 8_000;
const STEADY_MS = 10_000; // playing this long forgets earlier failures
const WATCH_MS = 250;
const STUCK_MS = 4_000; // no progress while it should: nudge; twice that: begin anew
const MEDIA_RECOVERIES_MAX = 2;
const NATIVE = 'application/vnd.apple.mpegurl';

const COMMON = {
  // Segments are fMP4 and pass through: a worker would only cost its start, and the content policy admits none.
  enableWorker: false,
  capLevelToPlayerSize: true,
  backBufferLength: 30,
};

const LIVE = {
  ...COMMON,
  lowLatencyMode: true,
  liveSyncDuration: TARGET_S,
  liveMaxLatencyDuration: 8,
  liveSyncOnStallIncrease: ON_STALL_S,
  maxLiveSyncPlaybackRate: 1, // see latency.js
  liveDurationInfinity: true,
  maxBufferLength: 10,
  // A first guess above the renditions of most ladders: the picture starts sharp, and the first parts correct it.
  abrEwmaDefaultEstimate: 4_000_000,
};

const RECORDED = { ...COMMON, lowLatencyMode: false, maxBufferLength: 30, abrEwmaDefaultEstimate: 4_000_000 };

let library = null;
function loadLibrary() {
  library ??= import(document.querySelector('link[rel="modulepreload"][data-hls]').href).then((module) => module.default);
  return library;
}

export class Player extends EventTarget {
  // `access` puts the token of the moment before addresses (access.js).
  constructor(video, { live, access = null }) {
    super();
    this.video = video;
    this.access = access;
    this.live = live;
    this.state = 'idle';
    this.hls = null;
    this.source = null;
    this.startAt = -1;
    this.failures = 0;
    this.recoveries = 0;
    this.progress = { at: 0, time: 0 };
    this.timer = null;
    this.watching = null;
    video.addEventListener('playing', () => this.#enter('playing'));
    video.addEventListener('ended', () => (this.live ? this.#finish('ended') : this.#enter('ended')));
    video.addEventListener('play', () => this.#resumed());
    video.addEventListener('error', () => { if (!this.hls && this.source) this.#again('native'); });
  }

  get latency() {
    return this.live && this.hls?.latency ? this.hls.latency : null;
  }

  get levels() {
    return this.hls?.levels ?? [];
  }

  // The index of a rendition, or -1 for whichever suits the connection.
  set quality(index) {
    if (this.hls) this.hls.nextLevel = index;
  }

  async start(source, { at = -1 } = {}) {
    this.source = source;
    this.startAt = at;
    this.failures = 0;
    this.#enter('loading');
    this.watching ??= setInterval(() => this.#watch(), WATCH_MS);
    await this.#load();
  }

  stop() {
    this.#finish('idle');
  }

  toLiveEdge() {
    const edge = this.hls?.liveSyncPosition;
    if (edge && Math.abs(edge - this.video.currentTime) > 0.5) this.video.currentTime = edge;
    this.play();
  }

  // Browsers start sound only for people who have acted: then the picture starts without, and the page offers the sound.
  async play() {
    try {
      await this.video.play();
    } catch (refusal) {
      if (refusal.name !== 'NotAllowedError' || this.video.muted) return;
      this.video.muted = true;
      this.dispatchEvent(new Event('muted'));
      await this.video.play().catch(() => null);
    }
  }

  async #load() {
    const wanted = this.source;
    const Hls = await loadLibrary();
    if (this.source !== wanted) return; // stopped or changed meanwhile
    this.#drop();
    if (Hls.isSupported()) this.#attach(Hls);
    else if (this.video.canPlayType(NATIVE)) {
      this.video.src = this.#address(this.source);
      if (this.startAt > 0) this.video.currentTime = this.startAt;
      this.play();
    } else this.#finish('unsupported');
  }

  #attach(Hls) {
    const hls = new Hls({
      ...(this.live ? LIVE : RECORDED),
      startPosition: this.live ? -1 : this.startAt,
      xhrSetup: (request, url) => this.#prepare(request, url),
    });
    this.hls = hls;
    hls.on(Hls.Events.MANIFEST_PARSED, () => {
      this.dispatchEvent(new Event('levels'));
      this.play();
    });
    hls.on(Hls.Events.ERROR, (_, error) => {
      this.dispatchEvent(new CustomEvent('fault', { detail: error }));
      if (!error.fatal || this.hls !== hls) return;
      if (error.type === Hls.ErrorTypes.MEDIA_ERROR && this.recoveries < MEDIA_RECOVERIES_MAX) {
        this.recoveries += 1;
        hls.recoverMediaError();
        this.play();
      } else this.#again(error.details);
    });
    hls.loadSource(this.#address(this.source));
    hls.attachMedia(this.video);
  }

  #address(url) {
    return this.access?.address(url) ?? url;
  }

  // Playlists and segments name each other by the address they were first asked at: an old token's.
  #prepare(request, url) {
    const now = this.#address(url);
    if (now !== url) request.open('GET', now, true);
    if (this.live && url.includes('.m3u8')) request.setRequestHeader('Tallylight-Viewer', viewer());
  }

  // From the beginning, later and later, with jitter: an origin that comes back must not meet all its viewers in one moment.
  #again(why) {
    if (!this.source) return;
    if (!this.live) this.startAt = this.video.currentTime || this.startAt;
    this.#drop();
    this.#enter('recovering', why);
    const wait = Math.min(BACK_OFF_MS_MAX, BACK_OFF_MS * 2 ** this.failures) * (0.5 + Math.random());
    this.failures += 1;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#load(), wait);
  }

  #watch() {
    const { video, progress, hls } = this;
    const now = performance.now();
    if (hls && this.live) keepClose(video, hls);
    if (video.paused || video.seeking || document.hidden || video.currentTime !== progress.at) {
      if (video.currentTime < progress.at || video.paused || document.hidden) progress.since = now;
      progress.at = video.currentTime;
      progress.time = now;
      if (now - (progress.since ?? now) > STEADY_MS) {
        this.failures = 0;
        this.recoveries = 0;
      }
      progress.nudged = false;
      return;
    }
    progress.since = now;
    if (!this.live || !hls || this.state === 'recovering') return;
    if (now - progress.time > 2 * STUCK_MS) {
      progress.time = now;
      this.#again('stuck');
    } else if (now - progress.time > STUCK_MS && !progress.nudged && aheadOf(video) < 0.1) {
      progress.nudged = true;
      if (hls.liveSyncPosition) video.currentTime = hls.liveSyncPosition;
    }
  }

  // Live is now: a pause does not become a delay.
  #resumed() {
    if (this.live && this.hls?.liveSyncPosition && this.hls.latency > this.hls.targetLatency + 3) this.toLiveEdge();
  }

  #enter(state, why = null) {
    if (!this.source || (this.state === state && why === null)) return;
    this.state = state;
    this.dispatchEvent(new CustomEvent('state', { detail: { state, why } }));
  }

  #finish(state) {
    this.#enter(state);
    this.source = null;
    clearTimeout(this.timer);
    clearInterval(this.watching);
    this.watching = null;
    this.#drop();
  }

  #drop() {
    this.hls?.destroy();
    this.hls = null;
    this.recoveries = 0;
    this.video.playbackRate = 1;
    if (this.video.getAttribute('src')) {
      this.video.removeAttribute('src');
      this.video.load();
    }
  }
}
