// The account corner of every page's header, and who is logged in, for the other modules.

import { api, get, remembered } from './api.js';
import { $, el } from './dom.js';
import { hue } from './format.js';

// The account of this browser ({username, …}), or null. Nobody who never logged in here costs a request.
export const session = remembered.user ? load() : Promise.resolve(null);

async function load() {
  try {
    return await get('/api/v1/accounts/me');
  } catch (problem) {
    if (problem.status === 401) remembered.user = null;
    // The server is away for a moment: the name is known, and every act is judged there anyway.
    return remembered.user ? { username: remembered.user, channels: [] } : null;
  }
}

export const here = () => encodeURIComponent(location.pathname + location.search);

export async function logOut() {
  remembered.user = null;
  await api('DELETE', '/api/v1/sessions/current').catch(() => null);
  location.reload();
}

function corner(account) {
  if (!account) {
    const next = ['/login', '/register'].includes(location.pathname) ? '' : `?next=${here()}`;
    return [
      el('a', { class: 'button quiet', href: `/login${next}` }, 'Log in'),
      el('a', { class: 'button', href: `/register${next}` }, 'Sign up'),
    ];
  }
  return [
    el('a', { class: 'button quiet', href: '/dashboard' }, 'Dashboard'),
    el('a', { class: 'me', href: '/settings', title: 'Your account' },
      face(account.username), el('span', { class: 'who' }, account.display_name ?? account.username)),
    el('button', { class: 'button quiet log-out', type: 'button', onclick: logOut }, 'Log out'),
  ];
}

function face(name) {
  const made = el('span', { class: 'face small', 'aria-hidden': 'true' }, name[0]);
  made.style.setProperty('--hue', hue(name));
  return made;
}

const place = $('#account');
place.replaceChildren(...corner(remembered.user && { username: remembered.user }));
session.then((account) => place.replaceChildren(...corner(account)));
