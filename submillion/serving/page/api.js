// Questions to the server. What goes wrong becomes a Failure with sentences to show.

export class Failure extends Error {
  constructor(problems, status = 0) {
    super(problems.join("\n"));
    this.problems = problems;
    this.status = status;
  }
}

export const get = (path) => ask(path, {});
export const post = (path, body = {}) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

export const problemsOf = (error) => error.problems ?? [`the page failed: ${error.message}; reload it`];

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Failure(["the server does not answer: it was stopped, or it is busy; start `submillion serve` again"]);
  }
  const values = await answer.json().catch(() => null);
  if (answer.ok && values !== null) return values;
  throw new Failure(values?.problems ?? [`the server answered ${answer.status}: reload the page`], answer.status);
}

// Only the last question of its kind counts: `await latest(...)` is undefined for those that a newer one overtook.
export function lastOnly() {
  let newest = 0;
  return async (promise) => {
    const own = ++newest;
    try {
      const found = await promise;
      return own === newest ? found : undefined;
    } catch (error) {
      if (own === newest) throw error;
      return undefined;
    }
  };
}
