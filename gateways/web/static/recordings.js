// Past broadcasts as tiles. Used by the watch page and the dashboard.

import { el } from './dom.js';
import { clock, hue, moment, plural } from './format.js';

// `acts(item)` gives what stands below a tile, to whoever may act: who sees those too that are shown to nobody.
export function recordings(items, channel, acts = null) {
  return items.filter((item) => item.ended_at && (item.vod_url || (acts && item.published === false))).map((item) => {
    const length = item.duration_s ?? (new Date(item.ended_at) - new Date(item.started_at)) / 1000;
    const picture = el('div', { class: 'picture' },
      el('span', { class: 'initial', 'aria-hidden': 'true' }, channel.slice(0, 1)),
      item.poster_url && el('img', { class: 'poster', src: item.poster_url, alt: '', loading: 'lazy', onerror: (event) => event.target.remove() }),
      el('span', { class: 'length' }, clock(length)));
    picture.style.setProperty('--hue', hue(item.id));
    return el('li', { class: 'tile' }, el('a', { href: `/videos/${item.id}` },
      picture,
      el('strong', { class: 'title' }, item.title || 'Untitled broadcast'),
      el('span', { class: 'when' }, `${moment(item.started_at)} · ${plural(item.total_views ?? 0, 'view')}`)), acts?.(item));
  });
}
