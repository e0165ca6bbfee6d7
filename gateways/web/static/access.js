// The token by which a subscriber plays what a channel shows to its subscribers alone: asked for, renewed before it ends, and put before
// media addresses. Used by the pages with a player.

import { post } from './api.js';

const RETRY_MS = 5_000;
const MEDIA = /^((?:https?:)?\/\/[^/]+)?(?:\/play\/[^/]+)?(?=\/(?:live|vod|clips)\/)/;

// `renewed`: addresses made before will end. `lost`: who had one may not play any more.
export class Access extends EventTarget {
  constructor(channel) {
    super();
    this.path = `/api/v1/channels/${channel}/playback-token`;
    this.prefix = '';
    this.timer = null;
  }

  get isOpen() {
    return this.prefix !== '';
  }

  // Raises the API's problem: `subscription_required` to whoever may not play.
  async open() {
    const { prefix, expires_in: seconds } = await post(this.path);
    this.prefix = prefix;
    this.#renewIn(seconds * 500);
    this.dispatchEvent(new Event('renewed'));
  }

  // The address as it can be asked for now, whatever token it was made with.
  address(url) {
    return this.isOpen ? url.replace(MEDIA, (_, origin = '') => origin + this.prefix) : url;
  }

  #renewIn(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#renew(), ms);
  }

  async #renew() {
    try {
      await this.open();
    } catch (problem) {
      if (problem.status !== 401 && problem.status !== 403) { this.#renewIn(RETRY_MS); return; }
      this.prefix = '';
      this.dispatchEvent(new Event('lost'));
    }
  }
}
