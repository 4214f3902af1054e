/** A real browser: Chromium without a window, spoken to over a pipe in its DevTools protocol. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { childEnds } from "./wait.ts";

export type Page = {
  goto(url: string): Promise<void>;
  /** The value of an expression in the page, a promise's too. */
  evaluate<T>(expression: string): Promise<T>;
  /** Chooses a file for the input that the selector finds, as a person would. */
  chooseFile(selector: string, path: string): Promise<void>;
  /** Does something that leads to another page, and waits until that is loaded. */
  leave(expression: string): Promise<void>;
};

type Message = {
  id?: number;
  method?: string;
  params?: Record<string, unknown>;
  result?: Record<string, unknown>;
  error?: { message: string };
};

/**
 * Every name below `example` leads it to this machine.
 * @throws when the browser ends before it answers
 */
export const openBrowser = async (): Promise<Page & AsyncDisposable> => {
  const profile = await mkdtemp(join(tmpdir(), "banger-browser-"));
  const args = ["--headless=new", "--remote-debugging-pipe", `--user-data-dir=${profile}`, "--disable-gpu"];
  const names = "--host-resolver-rules=MAP *.example 127.0.0.1";
  // What it sandboxes itself with is not to be had as root, or in a container.
  const browser = spawn("chromium", [...args, names, "--no-sandbox", "--disable-dev-shm-usage", "about:blank"], {
    stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    env: { ...process.env, HOME: profile },
    detached: true,
  });
  try {
    return await connected(browser, profile);
  } catch (error) {
    await end(browser, profile);
    throw error;
  }
};

const end = async (browser: ChildProcess, profile: string): Promise<void> => {
  if (browser.pid !== undefined && browser.exitCode === null) {
    // Its helpers too.
    process.kill(-browser.pid, "SIGKILL");
    await childEnds(browser);
  }
  await rm(profile, { recursive: true, force: true, maxRetries: 5 });
};

const connected = async (browser: ChildProcess, profile: string): Promise<Page & AsyncDisposable> => {
  const input = browser.stdio[3] as Writable;
  const output = browser.stdio[4] as Readable;
  const waiting = new Map<number, PromiseWithResolvers<Record<string, unknown>>>();
  const events = new Map<string, () => void>();
  let next = 1;
  let rest = "";
  const hear = ({ id, method, result, error }: Message): void => {
    if (method !== undefined) events.get(method)?.();
    if (id === undefined) return;
    if (error) waiting.get(id)?.reject(new Error(error.message));
    else waiting.get(id)?.resolve(result ?? {});
    waiting.delete(id);
  };
  output.setEncoding("utf8").on("data", (text: string) => {
    const messages = (rest + text).split("\0");
    rest = messages.pop() ?? "";
    for (const message of messages) hear(JSON.parse(message) as Message);
  });
  const gone = once(browser, "exit").then(() => {
    for (const one of waiting.values()) one.reject(new Error("the browser has ended"));
  });
  const send = (method: string, params: Record<string, unknown> = {}, sessionId?: string) => {
    const id = next++;
    const answer = Promise.withResolvers<Record<string, unknown>>();
    waiting.set(id, answer);
    input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return answer.promise;
  };

  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  const ask = (method: string, params?: Record<string, unknown>) => send(method, params, sessionId as string);
  await ask("Page.enable");
  const loaded = async (work: () => Promise<unknown>): Promise<void> => {
    const done = new Promise<void>((resolve) => events.set("Page.loadEventFired", resolve));
    await work();
    await done;
  };
  const evaluate = async <T>(expression: string): Promise<T> => {
    const { result, exceptionDetails } = (await ask("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    })) as { result: { value: T }; exceptionDetails?: { exception?: { description?: string } } };
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? expression);
    return result.value;
  };
  return {
    goto: (url) => loaded(() => ask("Page.navigate", { url })),
    evaluate,
    leave: (expression) => loaded(() => evaluate(expression)),
    chooseFile: async (selector, path) => {
      const { root } = (await ask("DOM.getDocument")) as { root: { nodeId: number } };
      const { nodeId } = await ask("DOM.querySelector", { nodeId: root.nodeId, selector });
      await ask("DOM.setFileInputFiles", { nodeId, files: [path] });
    },
    [Symbol.asyncDispose]: async () => {
      await end(browser, profile);
      await gone;
    },
  };
};
