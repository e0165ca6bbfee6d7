// The one way to the API: JSON in and out, typed problems, one silent renewal of the session, and reading one's own writes.
// Every other module calls it; nothing else calls fetch on /api.

const POSITION_KEY = 'tallylight.position';
const POSITION_MS_MAX = 30_000; // by then whoever reads has it
const USER_KEY = 'tallylight.user';
const UNTIL_KEY = 'tallylight.until';
const EARLY_MS = 30_000;
const TIMEOUT_MS = 15_000;

export class Problem extends Error {
  constructor(status, code, detail, extra = {}) {
    super(detail);
    this.status = status;
    this.code = code;
    this.waitS = extra.wait_s ?? null;
    this.retryable = status === 0 || status >= 500;
  }
}

// Who is logged in, as far as this browser knows; the cookie itself is out of a script's reach.
export const remembered = {
  get user() { return read(localStorage, USER_KEY); },
  set user(name) { write(localStorage, USER_KEY, name); },
};

export async function logIn(username, password) {
  const session = await api('POST', '/api/v1/sessions', { body: { username, password } });
  remembered.user = session.username;
  lasts(session);
}

// An access token that ran out makes a reader a stranger, not an error: it is renewed before.
const lasts = ({ expires_in: seconds }) => write(localStorage, UNTIL_KEY, String(Date.now() + seconds * 1000));
const ranOut = () => Date.now() > Number(read(localStorage, UNTIL_KEY) ?? 0) - EARLY_MS;

export async function api(method, path, { body, headers = {}, signal } = {}) {
  const renewable = remembered.user && !path.startsWith('/api/v1/sessions');
  if (renewable && ranOut()) await renew();
  let answer = await send(method, path, body, headers, signal);
  if (answer.status === 401 && renewable) {
    if (await renew()) answer = await send(method, path, body, headers, signal);
  }
  const position = answer.headers.get('Tallylight-Position');
  if (position && method !== 'GET') write(sessionStorage, POSITION_KEY, `${Date.now()} ${position}`);
  const content = answer.headers.get('Content-Type') ?? '';
  const value = content.includes('json') ? await answer.json().catch(() => null) : null;
  if (answer.ok) return value;
  const detail = value?.detail || value?.title || `The server answered ${answer.status}.`;
  throw new Problem(answer.status, value?.code ?? 'unknown', detail, value ?? {});
}

export const get = (path, options) => api('GET', path, options);
export const post = (path, body, options) => api('POST', path, { body, ...options });

async function send(method, path, body, headers, signal) {
  const all = { Accept: 'application/json', ...headers };
  const [at, position] = (read(sessionStorage, POSITION_KEY) ?? '').split(' ');
  if (position && method === 'GET' && Date.now() - at < POSITION_MS_MAX) all['Tallylight-Position'] = position;
  if (body !== undefined) all['Content-Type'] = 'application/json';
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  try {
    return await fetch(path, {
      method,
      headers: all,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      signal: signal ? anyOf(signal, limit) : limit,
    });
  } catch (fault) {
    if (signal?.aborted) throw fault;
    throw new Problem(0, 'unreachable', 'Tallylight cannot be reached. Check your connection.');
  }
}

function anyOf(...signals) {
  if (AbortSignal.any) return AbortSignal.any(signals);
  const either = new AbortController();
  for (const signal of signals) signal.addEventListener('abort', () => either.abort(signal.reason), { once: true });
  return either.signal;
}

// A refresh token rotates: two tabs take turns, and the second finds that the first has done it.
let renewing = null;
function renew() {
  const before = read(localStorage, UNTIL_KEY);
  renewing ??= exclusively(async () => {
    if (read(localStorage, UNTIL_KEY) !== before) return true;
    const answer = await send('POST', '/api/v1/sessions/refresh', {}, {}).catch(() => null);
    if (answer?.ok) lasts(await answer.json());
    else if (answer?.status === 401 || answer?.status === 403) remembered.user = null;
    return Boolean(answer?.ok);
  }).finally(() => { renewing = null; });
  return renewing;
}

function exclusively(work) {
  return navigator.locks ? navigator.locks.request('tallylight.renew', work) : work();
}

// A browser that forbids storage still gets to watch.
function read(storage, key) {
  try { return storage.getItem(key); } catch { return null; }
}

function write(storage, key, value) {
  try {
    if (value === null) storage.removeItem(key);
    else storage.setItem(key, value);
  } catch { /* the answer to the next question is then only a little older */ }
}
