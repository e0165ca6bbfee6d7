// A list of the API's that grows when asked to: `row` makes an element of an item; `none` is shown while there is nothing, `more` while
// there is more. Answers a function that loads it anew.

import { get } from './api.js';
import { show } from './dom.js';

export function list({ path, into, none, more, row }) {
  let next = null;

  async function load(cursor = null) {
    const page = await get(cursor ? `${path}?cursor=${encodeURIComponent(cursor)}` : path);
    const rows = page.items.map(row);
    if (cursor) into.append(...rows);
    else into.replaceChildren(...rows);
    next = page.next;
    show(more, Boolean(next));
    show(none, into.childElementCount === 0);
  }

  more.addEventListener('click', () => load(next));
  return () => load();
}
