// A chat room's connection: stays, or comes back and asks for what it missed. Used by the chat panel; draws nothing.
//
// Events: `frame` (detail: one parsed frame), `connection` (detail: connecting | open | waiting | closed).

import { post } from './api.js';
import { viewer } from './viewer.js';

const BACK_OFF_MS = 500;
const BACK_OFF_MS_MAX = 15_000;
const STEADY_MS = 5_000;
const PING_MS = 20_000;
const SILENCE_MS_MAX = 10_000;
const UNSURE_MAX = 3; // messages without an answer, kept to be sent again after a reconnect

export class ChatSocket extends EventTarget {
  constructor(channel, { signedIn }) {
    super();
    this.channel = channel;
    this.signedIn = signedIn;
    this.after = null; // null until a message came: a join that broke off must not skip the history
    this.failures = 0;
    this.unsure = new Map();
    this.socket = null;
    this.timer = null;
    this.pinging = null;
    addEventListener('online', () => this.#now());
    document.addEventListener('visibilitychange', () => { if (!document.hidden) this.#now(); });
    addEventListener('pagehide', () => this.socket?.close());
    addEventListener('pageshow', (event) => { if (event.persisted) this.#now(); });
  }

  async connect() {
    this.#tell('connecting');
    const query = new URLSearchParams({ viewer: viewer() });
    if (this.after !== null) query.set('after', this.after);
    const ticket = this.signedIn ? await this.#ticket() : null;
    if (ticket) query.set('ticket', ticket);
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const socket = new WebSocket(`${scheme}://${location.host}/ws/chat/${this.channel}?${query}`);
    this.socket = socket;
    let openedAt = null;
    socket.onopen = () => {
      openedAt = performance.now();
      this.#tell('open');
      this.#listen(socket);
      for (const frame of this.unsure.values()) socket.send(JSON.stringify(frame));
    };
    socket.onmessage = ({ data }) => this.#received(data);
    socket.onclose = ({ code }) => {
      clearTimeout(this.pinging);
      if (this.socket !== socket) return;
      this.socket = null;
      if (openedAt !== null && performance.now() - openedAt > STEADY_MS) this.failures = 0;
      this.#lost(code);
    };
  }

  // The nonce names the message for its answer, and keeps it single however often it has to be sent.
  say(text, replyTo) {
    const nonce = randomName();
    const frame = { type: 'message', text, nonce, ...(replyTo ? { reply_to: replyTo } : {}) };
    this.unsure.set(nonce, frame);
    if (this.unsure.size > UNSURE_MAX) this.unsure.delete(this.unsure.keys().next().value);
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
    return nonce;
  }

  async #ticket() {
    try {
      return (await post('/api/v1/chat-tickets')).ticket;
    } catch (problem) {
      if (problem.status === 401) this.signedIn = false;
      return null;
    }
  }

  #received(data) {
    let frame;
    try { frame = JSON.parse(data); } catch { return; }
    this.heardAt = performance.now();
    if (frame.nonce) this.unsure.delete(frame.nonce);
    const position = frame.type === 'messages' ? frame.items.at(-1)?.position : frame.type === 'gap' ? frame.to : frame.position;
    if (position !== undefined && frame.type !== 'welcome' && frame.type !== 'accepted') {
      this.after = Math.max(this.after ?? 0, position);
    }
    this.dispatchEvent(new CustomEvent('frame', { detail: frame }));
  }

  // A network that vanished closes nothing: whoever is silent after a ping is gone.
  #listen(socket) {
    this.heardAt = performance.now();
    const ask = () => {
      const asked = performance.now();
      socket.send('{"type":"ping"}');
      this.pinging = setTimeout(() => {
        if (this.heardAt < asked) {
          socket.onclose({ code: 1006 });
          socket.close();
        } else this.pinging = setTimeout(ask, PING_MS - SILENCE_MS_MAX);
      }, SILENCE_MS_MAX);
    };
    this.pinging = setTimeout(ask, PING_MS);
  }

  #lost(code) {
    if (code >= 4100 && code < 4200) { // the server will not take us back unchanged
      this.#tell('closed');
      return;
    }
    this.#tell('waiting');
    const wait = Math.min(BACK_OFF_MS_MAX, BACK_OFF_MS * 2 ** this.failures) * (0.5 + Math.random());
    this.failures += 1;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), wait);
  }

  #now() {
    if (this.state !== 'waiting') return;
    clearTimeout(this.timer);
    this.failures = 0;
    this.connect();
  }

  #tell(state) {
    this.state = state;
    this.dispatchEvent(new CustomEvent('connection', { detail: state }));
  }
}

// crypto.randomUUID exists on secure origins only, and a laptop on the local network is none.
export function randomName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
