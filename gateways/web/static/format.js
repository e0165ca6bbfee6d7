// Numbers, times and amounts as people read them.

const compact = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat();
const dates = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const days = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });
const hours = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });

export const count = (value) => (value < 10_000 ? whole : compact).format(value ?? 0);
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
export const moment = (instant) => (instant ? dates.format(new Date(instant)) : '–');
export const day = (instant) => days.format(new Date(instant));
export const timeOfDay = (instant) => hours.format(new Date(instant));

// 3725 → 1:02:05
export function clock(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  const tail = `${String(s % 60).padStart(2, '0')}`;
  return h ? `${h}:${String(m).padStart(2, '0')}:${tail}` : `${m}:${tail}`;
}

export const since = (instant) => clock((Date.now() - new Date(instant)) / 1000);

// 90 → "1 min 30 s"
export function span(seconds) {
  const s = Math.ceil(seconds);
  if (s < 60) return `${s} s`;
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const words = [];
  let rest = s;
  for (const [size, unit] of parts) {
    const n = Math.floor(rest / size);
    if (n && words.length < 2) words.push(`${n} ${unit}`);
    rest %= size;
  }
  return words.join(' ');
}

export function money(minor, currency) {
  const style = new Intl.NumberFormat(undefined, { style: 'currency', currency });
  return style.format(minor / 10 ** style.resolvedOptions().maximumFractionDigits);
}

// A person's or channel's own colour: one of 360 hues, the same everywhere.
export function hue(name) {
  let hash = 2166136261;
  for (const char of name) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
  // Neighbouring names must not get neighbouring hues: the golden ratio spreads them.
  return Math.floor((((hash >>> 0) * 0.618033988749895) % 1) * 360);
}
