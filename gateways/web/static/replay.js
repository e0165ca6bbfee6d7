// A recording's chat beside its player, by offset: what was said up to the playhead, in step with seeks. Used by the video page.

import { get } from './api.js';
import { ChatLines } from './chat_lines.js';
import { $, say } from './dom.js';
import { clock } from './format.js';

const CHUNK_S = 60;
const LEAD_S = 20; // how long before its messages are due a chunk is asked for
const PAGE = 100;
const PAGES_MAX = 20; // of one chunk; a chat beyond that shows its first messages
const CHUNKS_MAX = 30; // kept, so that a seek back asks for nothing
const RETRY_MS = 3_000;

export class Replay {
  constructor(video, id) {
    this.video = video;
    this.path = `/api/v1/broadcasts/${id}/chat`;
    this.lines = new ChatLines($('#chat-lines'), { more: $('#chat-more'), stamp: (item) => clock(item.offset) });
    this.chunks = new Map(); // number → items, or null while asked for
    this.shown = -1; // offset up to which lines are on the screen; -1 after a seek
    video.addEventListener('timeupdate', () => this.show());
    video.addEventListener('seeking', () => this.#jump());
    this.show();
  }

  show() {
    const now = this.video.currentTime;
    const chunk = Math.floor(now / CHUNK_S);
    if (this.shown < 0) { // begin with what was being said just before
      if (!this.#ready(chunk) || (chunk > 0 && !this.#ready(chunk - 1))) return;
      this.#add(chunk > 0 ? (chunk - 1) * CHUNK_S : 0, now);
    } else if (now > this.shown) {
      if (!this.#ready(chunk)) return;
      this.#add(this.shown, now);
    }
    if (now % CHUNK_S > CHUNK_S - LEAD_S) this.#ready(chunk + 1);
  }

  // Forward by playing only adds; any other move begins anew.
  #jump() {
    const now = this.video.currentTime;
    if (this.shown >= 0 && now >= this.shown && now - this.shown < 1) return;
    this.lines.clear();
    this.shown = -1;
    this.show();
  }

  #add(from, to) {
    const due = [];
    for (let number = Math.floor(Math.max(0, from) / CHUNK_S); number <= Math.floor(to / CHUNK_S); number += 1) {
      for (const item of this.chunks.get(number) ?? []) if (item.offset <= to && item.offset >= from) due.push(item);
    }
    this.lines.add(due);
    this.shown = to;
  }

  #ready(number) {
    const items = this.chunks.get(number);
    if (items === undefined) this.#load(number);
    return Boolean(items);
  }

  async #load(number) {
    this.chunks.set(number, null);
    try {
      this.chunks.set(number, await this.#fetch(number * CHUNK_S, (number + 1) * CHUNK_S));
      say($('#chat-connection'), null);
      while (this.chunks.size > CHUNKS_MAX) this.chunks.delete(this.chunks.keys().next().value);
      this.show();
    } catch (problem) {
      say($('#chat-connection'), problem.message);
      setTimeout(() => { this.chunks.delete(number); this.show(); }, RETRY_MS);
    }
  }

  async #fetch(from, to) {
    const items = [];
    let cursor = null;
    for (let page = 0; page < PAGES_MAX; page += 1) {
      const query = new URLSearchParams({ from_offset: from, to_offset: to, limit: PAGE });
      if (cursor) query.set('cursor', cursor);
      const answer = await get(`${this.path}?${query}`);
      items.push(...answer.items);
      cursor = answer.next;
      if (!cursor) break;
    }
    return items;
  }
}
