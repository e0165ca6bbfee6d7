// The lines of a chat as a bounded list on the screen. Used by live chat and by replay. A line's text is only ever text.

import { el } from './dom.js';
import { hue, timeOfDay } from './format.js';

export const LINES_MAX = 300;
const NEAR_END_PX = 48;
const QUOTE_CHARS_MAX = 80;
const BADGES = { broadcaster: ['Broadcaster', '●'], moderator: ['Moderator', '◆'], subscriber: ['Subscriber', '★'] };

export class ChatLines {
  // `tools(item)` gives the elements at the end of a line, `stamp(item)` the words before it.
  constructor(list, { more, tools = () => [], stamp = (item) => timeOfDay(item.at) }) {
    this.list = list;
    this.more = more;
    this.tools = tools;
    this.stamp = stamp;
    this.byId = new Map();
    this.following = true;
    list.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    more.addEventListener('click', () => this.toEnd());
    new ResizeObserver(() => { if (this.following) this.toEnd(); }).observe(list);
  }

  add(items) {
    const fresh = items.filter((item) => !this.byId.has(item.id));
    if (!fresh.length) return;
    const batch = document.createDocumentFragment();
    // What would be pushed out at once is not worth drawing.
    for (const item of fresh.slice(-LINES_MAX)) batch.append(this.#line(item));
    this.list.append(batch);
    this.#settle();
  }

  notice(text) {
    this.list.append(el('li', { class: 'notice-line' }, text));
    this.#settle();
  }

  remove(id) {
    const line = this.byId.get(id);
    if (!line) return;
    this.byId.delete(id);
    line.remove();
  }

  removeBy(user) {
    for (const [id, line] of this.byId) if (line.dataset.user === user) this.remove(id);
  }

  clear() {
    this.byId.clear();
    this.list.replaceChildren();
    this.following = true;
    this.more.hidden = true;
  }

  // Redraws what depends on who is looking.
  refreshTools() {
    for (const line of this.byId.values()) line.querySelector('.tools').replaceChildren(...this.tools(line.item));
  }

  toEnd() {
    this.following = true;
    this.more.hidden = true;
    this.list.scrollTop = this.list.scrollHeight;
  }

  #line(item) {
    const name = el('span', { class: 'user' }, item.user);
    name.style.setProperty('--hue', hue(item.user));
    const line = el('li', { class: 'line', tabindex: -1, 'data-id': item.id, 'data-user': item.user },
      this.#quote(item.reply_to),
      el('span', { class: 'at' }, this.stamp(item)),
      ...(item.badges ?? []).map(badge),
      name,
      el('span', { class: 'text' }, item.text),
      el('span', { class: 'tools' }, ...this.tools(item)));
    line.item = item;
    this.byId.set(item.id, line);
    return line;
  }

  #quote(id) {
    const to = id && this.byId.get(id)?.item;
    if (!to) return null;
    const text = to.text.length > QUOTE_CHARS_MAX ? `${to.text.slice(0, QUOTE_CHARS_MAX)}…` : to.text;
    return el('span', { class: 'quote' }, `↪ ${to.user}: ${text}`);
  }

  #settle() {
    while (this.list.childElementCount > LINES_MAX) {
      const first = this.list.firstElementChild;
      this.byId.delete(first.dataset.id);
      first.remove();
    }
    if (this.following) this.toEnd();
    else this.more.hidden = false;
  }

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.list;
    this.following = scrollTop + clientHeight >= scrollHeight - NEAR_END_PX;
    if (this.following) this.more.hidden = true;
  }
}

function badge(name) {
  const [label, sign] = BADGES[name] ?? [name, '■'];
  return el('span', { class: `badge badge-${BADGES[name] ? name : 'other'}`, title: label, role: 'img', 'aria-label': label }, sign);
}
