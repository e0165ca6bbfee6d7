// The chat panel of the watch page: the room's lines, what one may write, and what a moderator may do to a line.

import { api, post } from './api.js';
import { ChatLines } from './chat_lines.js';
import { ChatSocket } from './chat_socket.js';
import { $, el, say, show } from './dom.js';
import { span } from './format.js';
import { here } from './session.js';

const TEXT_CHARS_MAX = 500;

const REASONS = {
  banned: 'You are banned from this chat.',
  timed_out: 'You are timed out.',
  rate_limited: 'One message a second.',
  slow_mode: 'Slow mode is on.',
  followers_only: 'Only followers may write here.',
  subscribers_only: 'Only subscribers may write here.',
  emote_only: 'Only emotes are allowed right now.',
  not_unique: 'You said that already.',
  login_required: 'Log in to write.',
  text_invalid: 'This message cannot be sent.',
  unavailable: 'Chat is away for a moment. Try again.',
};

const TIMEOUTS = [[60, '1 min'], [600, '10 min'], [86_400, '1 day']];

export function startChat(channel, account, { onStanding = () => null } = {}) {
  const panel = new ChatPanel(channel, account, onStanding);
  panel.socket.connect();
  return panel;
}

class ChatPanel {
  constructor(channel, account, onStanding) {
    this.channel = channel;
    this.base = `/api/v1/channels/${channel}`;
    this.onStanding = onStanding;
    this.user = null;
    this.moderates = false;
    this.replyTo = null;
    this.sent = new Map(); // nonce → what was written, to give it back when it is refused
    this.waiting = null;
    this.form = $('#chat-form');
    this.input = $('#chat-text');
    this.lines = new ChatLines($('#chat-lines'), { more: $('#chat-more'), tools: (item) => this.#tools(item) });
    this.socket = new ChatSocket(channel, { signedIn: Boolean(account) });
    this.socket.addEventListener('connection', ({ detail }) => this.#connection(detail));
    this.socket.addEventListener('frame', ({ detail }) => this.#frame(detail));
    this.form.addEventListener('submit', (event) => { event.preventDefault(); this.#send(); });
    this.input.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.#send(); }
    });
    this.input.maxLength = TEXT_CHARS_MAX;
    $('#chat-reply-end').addEventListener('click', () => this.#reply(null));
    $('#chat-login').href = `/login?next=${here()}`;
    this.#actions();
  }

  // -- what the room says -------------------------------------------------------------------------------------------

  #frame(frame) {
    const by = frame.by ? ` by ${frame.by}` : '';
    switch (frame.type) {
      case 'welcome': return this.#welcome(frame);
      case 'messages': return this.lines.add(frame.items);
      case 'accepted': return this.sent.delete(frame.nonce);
      case 'refused': return this.#refused(frame);
      case 'deleted': return this.lines.remove(frame.id);
      case 'timeout':
        this.lines.removeBy(frame.user);
        return this.lines.notice(`${frame.user} was timed out for ${span(frame.duration_s)}${by}.`);
      case 'banned':
        this.lines.removeBy(frame.user);
        return this.lines.notice(`${frame.user} was banned${by}.`);
      case 'unbanned':
        if (frame.user === this.user) this.#explain(null);
        return this.lines.notice(`${frame.user} may write again.`);
      case 'cleared':
        this.lines.clear();
        return this.lines.notice(`Chat was cleared${by}.`);
      case 'erased': return this.lines.removeBy(frame.user);
      case 'mode': return this.#mode(frame.mode);
      case 'gap': return this.lines.notice('Some messages were missed while you were away.');
      case 'error': return this.#explain(frame.detail);
      default: return null; // position, pong, and what a later server may add
    }
  }

  #welcome({ user, badges, mode }) {
    this.user = user;
    const moderated = this.moderates;
    this.moderates = badges.includes('moderator') || badges.includes('broadcaster');
    if (moderated !== this.moderates) this.lines.refreshTools();
    show(this.form, Boolean(user));
    show($('#chat-anonymous'), !user);
    this.#mode(mode);
    this.onStanding({ user, badges, moderates: this.moderates });
  }

  #mode(mode) {
    const chips = [
      mode.slow_s > 1 && `Slow: ${span(mode.slow_s)}`,
      mode.followers_only_min !== null && mode.followers_only_min !== undefined
        && (mode.followers_only_min ? `Followers of ${span(mode.followers_only_min * 60)}` : 'Followers only'),
      mode.subscribers_only && 'Subscribers only',
      mode.emote_only && 'Emotes only',
      mode.unique && 'No repeats',
    ].filter(Boolean);
    $('#chat-mode').replaceChildren(...chips.map((text) => el('li', {}, text)));
  }

  #connection(state) {
    const words = { connecting: 'Connecting…', waiting: 'Connection lost. Coming back…', closed: 'The chat closed this connection. Reload to come back.' };
    say($('#chat-connection'), words[state]);
  }

  // -- what one says ------------------------------------------------------------------------------------------------

  #send() {
    const text = this.input.value.trim();
    if (!text) return;
    const nonce = this.socket.say(text, this.replyTo);
    this.sent.set(nonce, text);
    this.input.value = '';
    this.#reply(null);
    this.#explain(null);
    this.lines.toEnd();
  }

  #refused({ nonce, reason, wait_s: waitS }) {
    const text = this.sent.get(nonce);
    this.sent.delete(nonce);
    if (text && !this.input.value) this.input.value = text;
    this.#explain(REASONS[reason] ?? `Not sent: ${reason}.`, waitS);
  }

  // With a countdown where waiting helps.
  #explain(text, waitS = null) {
    clearInterval(this.waiting);
    const place = $('#chat-refused');
    if (!text || !waitS) { say(place, text); return; }
    const until = performance.now() + waitS * 1000;
    const tick = () => {
      const left = (until - performance.now()) / 1000;
      if (left <= 0) { clearInterval(this.waiting); say(place, null); return; }
      say(place, `${text} Wait ${span(left)}.`);
    };
    this.waiting = setInterval(tick, 1000);
    tick();
  }

  #reply(item) {
    this.replyTo = item?.id ?? null;
    show($('#chat-reply'), Boolean(item));
    $('#chat-reply-to').textContent = item ? `Replying to ${item.user}` : '';
    if (item) this.input.focus();
  }

  // -- what a line offers -------------------------------------------------------------------------------------------

  #tools(item) {
    const button = (label, sign, act) => el('button', { type: 'button', title: label, 'aria-label': `${label}: ${item.user}`, onclick: act }, sign);
    if (!this.user) return [];
    const reply = button('Reply', '↩', () => this.#reply(item));
    if (!this.moderates) return [reply];
    return [
      reply,
      button('Delete message', '✕', () => this.#act(() => api('DELETE', `${this.base}/chat/${encodeURIComponent(item.id)}`))),
      ...(item.user === this.user ? [] : [button('Moderate', '⋯', (event) => this.#menu(item.user, event.currentTarget))]),
    ];
  }

  #actions() {
    const menu = $('#chat-menu');
    const ban = (more) => () => this.#act(() => post(`${this.base}/bans`, { username: menu.dataset.user, ...more }));
    const unban = () => this.#act(() => api('DELETE', `${this.base}/bans/${encodeURIComponent(menu.dataset.user)}`));
    const entry = (label, act) => el('button', { type: 'button', onclick: () => { menu.hidePopover(); act(); } }, label);
    $('#chat-menu-acts').replaceChildren(
      ...TIMEOUTS.map(([seconds, label]) => entry(`Time out for ${label}`, ban({ duration_s: seconds }))),
      entry('Ban', ban({})),
      entry('Lift ban or timeout', unban),
    );
  }

  #menu(user, anchor) {
    const menu = $('#chat-menu');
    menu.dataset.user = user;
    $('#chat-menu-user').textContent = user;
    menu.showPopover();
    const [box, own] = [anchor.getBoundingClientRect(), menu.getBoundingClientRect()];
    menu.style.left = `${Math.max(8, Math.min(box.right - own.width, innerWidth - own.width - 8))}px`;
    menu.style.top = `${Math.max(8, Math.min(box.bottom + 4, innerHeight - own.height - 8))}px`;
    $('button', menu).focus();
  }

  async #act(work) {
    try { await work(); } catch (problem) { this.#explain(problem.message); }
  }
}
