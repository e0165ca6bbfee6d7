// Log in and create an account.

import { logIn, post } from './api.js';
import { $, onSubmit } from './dom.js';

// Only a path of this site: "//elsewhere" and "https://elsewhere" are not.
function next() {
  const wanted = new URLSearchParams(location.search).get('next') ?? '/';
  const target = new URL(wanted, location.origin);
  return target.origin === location.origin ? target.pathname + target.search : '/';
}

for (const link of document.querySelectorAll('[data-keep-next]')) link.search = location.search;

function invalid(form) {
  const wrong = [...form.elements].find((field) => !field.checkValidity());
  if (!wrong) return;
  wrong.focus();
  throw new Error(`${wrong.labels[0].firstChild.textContent.trim()}: ${wrong.validationMessage}`);
}

const [login, register] = [$('#login'), $('#register')];

if (login) {
  onSubmit(login, async (form) => {
    invalid(login);
    await logIn(form.get('username'), form.get('password'));
    location.assign(next());
  });
}

if (register) {
  onSubmit(register, async (form) => {
    invalid(register);
    const [username, password, email] = ['username', 'password', 'email'].map((name) => form.get(name));
    await post('/api/v1/accounts', email ? { username, password, email } : { username, password });
    await logIn(username, password);
    location.assign(next());
  });
}
