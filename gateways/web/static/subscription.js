// Subscribing to a channel on its watch page, and ending that: one button, and a dialog for each of the two.

import { api, post } from './api.js';
import { randomName } from './chat_socket.js';
import { $, onSubmit } from './dom.js';
import { day, money } from './format.js';
import { here, session } from './session.js';

// In words, of what the API says.
export const described = ({ tier, cancelled, expires_at: until }) => `Tier ${tier} · ${cancelled ? 'cancelled, ' : ''}runs until ${day(until)}`;

// `look` asks the server for the channel anew. Answers a function that shows what the channel's page says.
export function wireSubscription(base, look) {
  const [button, tiers, own] = ['#subscribe', '#tiers', '#own'].map((id) => $(id));
  let subscription = null;
  let purchase = null; // one purchase, however often its button is pressed or its answer lost

  button.addEventListener('click', async () => {
    if (!(await session)) { location.assign(`/login?next=${here()}`); return; }
    if (subscription) { own.showModal(); return; }
    purchase = randomName();
    tiers.showModal();
  });

  for (const price of tiers.querySelectorAll('[data-minor]')) price.textContent = money(price.dataset.minor, price.dataset.currency);
  $('#tiers-close').addEventListener('click', () => tiers.close());
  $('#tiers-form').addEventListener('change', () => { purchase = randomName(); });
  onSubmit($('#tiers-form'), async (form) => {
    const headers = { 'Idempotency-Key': purchase };
    const bought = await post(`${base}/subscriptions`, { tier: Number(form.get('tier')) }, { headers }).catch((problem) => {
      if (problem.code !== 'already_subscribed') throw problem;
    });
    tiers.close();
    if (bought) draw({ ...bought, cancelled: false });
    await look();
  });

  $('#own-close').addEventListener('click', () => own.close());
  onSubmit($('#own-form'), async () => {
    await api('DELETE', `/api/v1/subscriptions/${subscription.subscription_id}`);
    draw({ ...subscription, cancelled: true });
    await look();
  });

  function draw(found) {
    subscription = found;
    button.textContent = subscription ? 'Subscribed' : 'Subscribe';
    button.classList.toggle('quiet', Boolean(subscription));
    if (!subscription) { own.close(); return; }
    $('#own-what').textContent = described(subscription);
    $('#own-cancel').hidden = subscription.cancelled;
  }

  return draw;
}
