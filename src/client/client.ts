/** The typed client of the daemon's API. */
import type { ApiName, EndpointsOf, OperationLine, ParamsOf, RequestOf, ResultOf } from "../contract/api.ts";
import { BangerError, fromErrorBody } from "../contract/errors.ts";
import { type Progress, silentProgress } from "../contract/progress.ts";
import { type Route, routes } from "../contract/routes.ts";
import { buildId } from "../contract/version.ts";
import type { ExecResult } from "../contract/vms.ts";
import { daemonSocket } from "../host/paths.ts";
import { ensureRuntimeRoot } from "../host/runtime.ts";
import { lostDaemon } from "./errors.ts";
import { type FrameStream, type FrameStreamOptions, openFrameStream } from "./frame-stream.ts";
import { type HttpAnswer, type HttpRequest, isAbsent, readJson, readLines, sendRequest } from "./http.ts";
import { upgrade } from "./upgrade.ts";

export type JsonName = EndpointsOf<"json">;
export type OperationName = EndpointsOf<"operation">;
export type StreamName = EndpointsOf<"stream">;
/** How a stream of this endpoint ends. */
export type EndOf<N extends StreamName> = N extends "vmRun" | "vmExec"
  ? ExecResult
  : { ok: ResultOf<N>; exit?: undefined; signal?: undefined };

export type Client = Disposable & {
  /** One question, one answer. @throws the daemon's error, or DAEMON_UNREACHABLE */
  call<N extends JsonName>(name: N, params: ParamsOf<N>, request: RequestOf<N>): Promise<ResultOf<N>>;
  /**
   * Long work. When the progress is aborted, the daemon is asked to cancel, and the end of that (all undone) is waited for.
   * @throws the daemon's error (CANCELLED after an abort), or DAEMON_UNREACHABLE
   */
  operation<N extends OperationName>(
    name: N,
    params: ParamsOf<N>,
    request: RequestOf<N>,
    progress?: Progress,
  ): Promise<ResultOf<N>>;
  /** @throws the error with which the daemon refuses to begin */
  stream<N extends StreamName>(
    name: N,
    params: ParamsOf<N>,
    request: RequestOf<N>,
    options?: FrameStreamOptions,
  ): Promise<FrameStream<EndOf<N>>>;
  /** Breaks off every call and operation under way; streams go on. The client is of no use then. */
  close(): void;
};

export type ClientOptions = {
  /** Default: the daemon of this user. */
  socketPath?: string | undefined;
  /** Starts the daemon when it is not there, and replaces one of another build. Default: true. */
  autostart?: boolean | undefined;
};

const pathOf = (route: Route, params: Record<string, string>): string =>
  route.path.replace(/:(\w+)/g, (_, key: string) => encodeURIComponent(params[key] ?? ""));

/** A client of the daemon; nothing is connected before the first call. */
export const openClient = (options: ClientOptions = {}): Client => {
  const autostart = options.autostart ?? true;
  const socketPath = options.socketPath ?? daemonSocket();
  const closing = new AbortController();
  /** The daemon is known to be of our build, or was replaced once already. */
  let settled = !autostart;
  let checked: Promise<unknown> | undefined;

  const checkRuntime = (): Promise<unknown> => {
    checked ??= options.socketPath === undefined ? ensureRuntimeRoot() : Promise.resolve();
    return checked;
  };

  /** Runs `attempt`, and once more when the daemon had to be started or replaced first. */
  const withDaemon = async <T extends { build: string | undefined }>(
    attempt: () => Promise<T>,
    drop: (got: T) => void,
  ): Promise<T> => {
    await checkRuntime();
    let got: T;
    try {
      got = await attempt();
    } catch (error) {
      if (!autostart || !isAbsent(error)) throw error;
      const { startDaemon } = await import("./daemon-start.ts");
      await startDaemon(socketPath);
      settled = true;
      return await attempt();
    }
    if (settled || got.build === undefined || got.build === buildId()) {
      settled = true;
      return got;
    }
    drop(got);
    await replaceDaemon();
    return await attempt();
  };

  const replaceDaemon = async (): Promise<void> => {
    settled = true;
    const { stopDaemon } = await import("./daemon-stop.ts");
    const { startDaemon } = await import("./daemon-start.ts");
    try {
      await stopDaemon(socketPath, buildId());
    } catch (error) {
      // A peer of our build was quicker.
      if (!(error instanceof BangerError) || error.code !== "DAEMON_UNREACHABLE") throw error;
    }
    await startDaemon(socketPath);
  };

  const dropAnswer = ({ drop }: HttpAnswer): void => drop();

  const send = async (request: HttpRequest): Promise<HttpAnswer> => {
    // A daemon of another build must not carry out what it is then asked again: it is looked at before the first change.
    if (!settled && request.method !== "GET") {
      const status: HttpRequest = { method: "GET", path: routes.status.path };
      await readJson(await withDaemon(() => sendRequest(socketPath, status, closing.signal), dropAnswer));
    }
    return await withDaemon(() => sendRequest(socketPath, request, closing.signal), dropAnswer);
  };

  const requestOf = (name: ApiName, params: Record<string, string>, body: unknown): HttpRequest => {
    const route: Route = routes[name];
    return { method: route.method, path: pathOf(route, params), ...(route.method === "GET" ? {} : { body }) };
  };

  const call: Client["call"] = async (name, params, request) =>
    (await readJson(await send(requestOf(name, params, request)))) as ResultOf<typeof name>;

  const operation: Client["operation"] = async (name, params, request, progress = silentProgress()) => {
    const answer = await send(requestOf(name, params, request));
    if (answer.status >= 400) return (await readJson(answer)) as never;
    let id: string | undefined;
    let cancelled = false;
    const cancel = () => {
      if (cancelled || id === undefined || !progress.signal.aborted) return;
      cancelled = true;
      // An operation that ended meanwhile cannot be cancelled, and a daemon that is gone ends the lines below.
      sendRequest(socketPath, requestOf("cancel", { id }, undefined)).then(dropAnswer, () => undefined);
    };
    progress.signal.addEventListener("abort", cancel, { once: true });
    try {
      for await (const line of readLines(answer)) {
        const { operation: begun, progress: event, result, error } = line as Partial<Record<string, never>>;
        if (begun) ({ id } = begun as Extract<OperationLine, { operation: unknown }>["operation"]);
        cancel();
        if (event) progress.report(event);
        if (error) throw fromErrorBody(error);
        if (result !== undefined) return result;
      }
    } finally {
      progress.signal.removeEventListener("abort", cancel);
    }
    throw lostDaemon();
  };

  const stream: Client["stream"] = async (name, params, request, streamOptions) => {
    const { method, path } = requestOf(name, params, undefined);
    const { socket, head } = await withDaemon(
      () => upgrade(socketPath, method, path),
      (got) => got.socket.destroy(),
    );
    return openFrameStream<EndOf<typeof name>>(socket, head, request, streamOptions);
  };

  const close = () => closing.abort();
  return { call, operation, stream, close, [Symbol.dispose]: close };
};
