// Follows Airflow's light or dark, and renews a page whose clips are in flight.
"use strict";

const root = document.documentElement;

function followTheme() {
  let outer;
  try {
    outer = window.parent.document.documentElement;
  } catch {
    return; // framed by another origin
  }
  const follow = () => {
    const theme = ["dark", "light"].find((name) => outer.classList.contains(name));
    if (theme && outer !== root) root.dataset.theme = theme;
  };
  follow();
  new MutationObserver(follow).observe(outer, { attributes: true, attributeFilter: ["class"] });
}

async function renew() {
  const main = document.querySelector("main");
  const seconds = Number(main?.dataset.live);
  if (!seconds) return;
  await new Promise((done) => setTimeout(done, seconds * 1000));
  if (!document.hidden) {
    try {
      const reply = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (reply.status === 401 || reply.status === 403) return;
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").querySelector("main");
      if (reply.ok && fresh && fresh.outerHTML !== main.outerHTML) main.replaceWith(document.adoptNode(fresh));
    } catch {
      // the server is away: the next turn asks again
    }
  }
  renew();
}

followTheme();
renew();
