/** QEMU's machine protocol: one JSON value a line, over its control socket. */
import type { Duplex } from "node:stream";
import { BangerError } from "../../contract/errors.ts";

export type QmpEvent = { event: string; data: Record<string, unknown> };

export type Qmp = {
  /**
   * @returns the command's `return` value
   * @throws TOOL_FAILED with QEMU's description, or when the connection has ended
   */
  execute(command: string, args?: Record<string, unknown>): Promise<unknown>;
  close(): void;
};

/** Longest line taken from QEMU, in bytes. */
const MAX_LINE = 1024 * 1024;

/** Speaks QMP on `channel`; commands may be given at once, they wait for the greeting. */
export const qmpClient = (channel: Duplex, onEvent: (event: QmpEvent) => void): Qmp => {
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: BangerError) => void }>();
  let lastId = 0;
  let over: BangerError | undefined;

  const end = (reason: string) => {
    over ??= new BangerError("TOOL_FAILED", `QEMU's control connection ended: ${reason}`);
    for (const { reject } of waiting.values()) reject(over);
    waiting.clear();
    channel.destroy();
  };

  const onLine = (line: string) => {
    const message = JSON.parse(line) as Record<string, unknown>;
    if (typeof message.event === "string") {
      const event = { event: message.event, data: (message.data ?? {}) as Record<string, unknown> };
      // Apart from what QEMU said: a listener's failure is no reason to lose the connection.
      queueMicrotask(() => onEvent(event));
      return;
    }
    const waiter = waiting.get(Number(message.id));
    if (!waiter) return;
    waiting.delete(Number(message.id));
    if ("error" in message) {
      const { desc } = message.error as { desc?: unknown };
      waiter.reject(new BangerError("TOOL_FAILED", `QEMU refused: ${String(desc)}`));
    } else waiter.resolve(message.return);
  };

  let rest = "";
  channel.on("data", (chunk: Buffer) => {
    const lines = (rest + chunk.toString("utf8")).split("\n");
    rest = lines.pop() ?? "";
    try {
      for (const line of lines) if (line.trim()) onLine(line);
      if (rest.length > MAX_LINE) throw new Error("a line over 1 MiB");
    } catch (error) {
      end(error instanceof Error ? error.message : String(error));
    }
  });
  channel.once("error", (error) => end(error.message));
  channel.once("close", () => end("closed"));
  channel.once("end", () => end("closed"));

  const execute = (command: string, args?: Record<string, unknown>): Promise<unknown> => {
    if (over) return Promise.reject(over);
    const id = ++lastId;
    const answer = new Promise<unknown>((resolve, reject) => waiting.set(id, { resolve, reject }));
    channel.write(`${JSON.stringify({ execute: command, id, ...(args ? { arguments: args } : {}) })}\n`);
    return answer;
  };
  // QEMU takes no command before this one; a failure shows in the first real command.
  execute("qmp_capabilities").catch(() => undefined);
  return { execute, close: () => end("closed by banger") };
};
