// What this browser calls itself when it watches and chats, so that it counts as one viewer; a random name that says nothing of its owner.

const KEY = 'tallylight.viewer';
let name = null;

export function viewer() {
  try { name ??= localStorage.getItem(KEY); } catch { /* kept for this page alone */ }
  if (!/^[\w-]{8,40}$/.test(name ?? '')) {
    name = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
    try { localStorage.setItem(KEY, name); } catch { /* likewise */ }
  }
  return name;
}
