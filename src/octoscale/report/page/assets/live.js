// A page of `octoscale watch` asks its own server for news: a few bytes each second, all data only when there are new ones.

const PERIOD = 1000;

async function follow(page, version) {
  let known = version;
  const isHeld = watchHands();
  for (;;) {
    await new Promise((done) => setTimeout(done, PERIOD));
    if (isHeld()) continue; // a slider, say, that somebody drags
    try {
      const answer = await fetch("state.json", { cache: "no-store" });
      const news = answer.ok
        ? await answer.json()
        : { version: known, state: { name: "unreadable", text: await answer.text() } };
      if (news.version !== known) {
        const data = await (await fetch("data.json", { cache: "no-store" })).json();
        await page.take(data, isHeld);
        known = data.version; // not before: what could not be shown is asked for again
      }
      page.heard(news);
    } catch {
      page.heard(null);
    }
  }
}
