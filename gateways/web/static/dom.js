// Elements from data. Text is only ever text: nothing here, or in any module, turns a string into markup.

export const $ = (selector, root = document) => root.querySelector(selector);

// el('a', {class: 'name', href: '/x', onclick: f}, 'text', child, null)
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function show(element, visible = true) {
  element.hidden = !visible;
}

export function say(element, text) {
  element.textContent = text ?? '';
  element.hidden = !text;
}

// A form with one submission at a time; a problem is shown in its `.problem`.
export function onSubmit(form, work) {
  const problem = $('.problem', form);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (form.ariaBusy === 'true') return;
    form.ariaBusy = 'true';
    if (problem) say(problem, null);
    const buttons = [...form.querySelectorAll('button')].filter((button) => !button.disabled);
    buttons.forEach((button) => { button.disabled = true; });
    try {
      await work(new FormData(form));
    } catch (fault) {
      if (problem) say(problem, fault.message);
      form.dispatchEvent(new CustomEvent('refused', { detail: fault }));
    } finally {
      form.ariaBusy = 'false';
      buttons.forEach((button) => { button.disabled = false; });
    }
  });
}

// Repeats a look at the server while somebody looks at the page; never two at once. Answers a function that asks at once.
export function poll(work, everyMs) {
  let timer = null;
  let busy = false;
  async function run() {
    clearTimeout(timer);
    if (busy) return;
    busy = true;
    try { await work(); } catch { /* the next look may succeed */ } finally { busy = false; }
    // Viewers of one channel must not ask in step.
    if (!document.hidden) timer = setTimeout(run, everyMs() * (0.85 + 0.3 * Math.random()));
  }
  document.addEventListener('visibilitychange', () => { if (!document.hidden) run(); });
  return run;
}
