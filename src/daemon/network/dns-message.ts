/**
 * Queries and answers of DNS (RFC 1035, 6891), as far as a server of one zone needs them. Of a query only header, question and EDNS are read: names in
 * it are never compressed, and everything that is no plain query is passed over.
 */

export const recordType = { a: 1, ns: 2, soa: 6, aaaa: 28, opt: 41, any: 255 } as const;
export const responseCode = { ok: 0, noSuchName: 3, notImplemented: 4, refused: 5, badVersion: 16 } as const;

const HEADER = 12;
/** Longest name on the wire, and longest label, in bytes. */
const MAX_NAME = 255;
const MAX_LABEL = 63;
const CLASS_IN = 1;
const CLASS_ANY = 255;
/** Largest datagram that is worth sending without EDNS, and what we say we take with it. */
const EDNS_SIZE = 1232;
/** QR, opcode, RD of the header's flags. */
const RESPONSE = 0x8000;
const OPCODE = 0x7800;
const RECURSION_DESIRED = 0x0100;
const AUTHORITATIVE = 0x0400;

export type Query = {
  id: number;
  recursionDesired: boolean;
  /** As it stands in the flags: 0 for a query, others for a zone transfer's NOTIFY, an UPDATE. */
  operation: number;
  /** Labels in lower case. */
  labels: string[];
  type: number;
  /** Of the Internet, or of any class. */
  internet: boolean;
  /** The question as it was sent: it is sent back. */
  question: Uint8Array;
  /** EDNS: its version, where it is used. */
  edns: number | undefined;
};

/** Where the labels end; undefined where there is no name. */
const readName = (message: Uint8Array, start: number): { labels: string[]; end: number } | undefined => {
  const labels: string[] = [];
  let at = start;
  for (;;) {
    const length = message[at];
    // Above 63 are pointers, which no question needs.
    if (length === undefined || length > MAX_LABEL || at - start > MAX_NAME) return undefined;
    at++;
    if (length === 0) return { labels, end: at };
    if (at + length > message.length) return undefined;
    labels.push(
      Buffer.from(message.buffer, message.byteOffset + at, length)
        .toString("latin1")
        .toLowerCase(),
    );
    at += length;
  }
};

/** @returns undefined for what is no query, or not a whole one */
export const parseQuery = (message: Uint8Array): Query | undefined => {
  if (message.length < HEADER) return undefined;
  const view = new DataView(message.buffer, message.byteOffset, message.length);
  const flags = view.getUint16(2);
  const [questions, answers, authorities, additional] = [4, 6, 8, 10].map((at) => view.getUint16(at));
  if ((flags & RESPONSE) !== 0 || questions !== 1 || answers !== 0 || authorities !== 0 || additional === undefined)
    return undefined;
  const name = readName(message, HEADER);
  if (!name || name.end + 4 > message.length) return undefined;
  const questionEnd = name.end + 4;
  const internet = [CLASS_IN, CLASS_ANY].includes(view.getUint16(name.end + 2));
  const edns = readEdns(message, view, questionEnd, additional);
  if (edns === "broken") return undefined;
  return {
    id: view.getUint16(0),
    recursionDesired: (flags & RECURSION_DESIRED) !== 0,
    operation: flags & OPCODE,
    labels: name.labels,
    type: view.getUint16(name.end),
    internet,
    question: message.slice(HEADER, questionEnd),
    edns,
  };
};

const readEdns = (
  message: Uint8Array,
  view: DataView,
  start: number,
  records: number,
): number | undefined | "broken" => {
  let at = start;
  let version: number | undefined;
  for (let i = 0; i < records; i++) {
    const name = readName(message, at);
    if (!name || name.end + 10 > message.length) return "broken";
    if (view.getUint16(name.end) === recordType.opt) {
      if (version !== undefined || name.labels.length > 0) return "broken";
      version = view.getUint8(name.end + 5);
    }
    at = name.end + 10 + view.getUint16(name.end + 8);
    if (at > message.length) return "broken";
  }
  return version;
};

export type ResourceRecord = { type: number; data: Uint8Array };

/** Name on the wire. @param labels each at most 63 bytes */
export const encodeName = (labels: readonly string[]): Uint8Array =>
  Buffer.concat([...labels.flatMap((label) => [Buffer.of(label.length), Buffer.from(label, "latin1")]), Buffer.of(0)]);

/** A pointer to the name of the question, at the end of the header. */
const QUESTION_NAME = Buffer.of(0xc0, HEADER);

const encodeRecord = (name: Uint8Array, { type, data }: ResourceRecord, ttl: number): Uint8Array => {
  const fixed = Buffer.alloc(10);
  fixed.writeUInt16BE(type, 0);
  fixed.writeUInt16BE(CLASS_IN, 2);
  fixed.writeUInt32BE(ttl, 4);
  fixed.writeUInt16BE(data.length, 8);
  return Buffer.concat([name, fixed, data]);
};

export type Answer = {
  code: number;
  /** Of the question's name. */
  answers: readonly ResourceRecord[];
  /** The zone's SOA, where there is no answer. */
  authority: { name: Uint8Array; record: ResourceRecord } | undefined;
  /** Seconds. */
  ttl: number;
};

export const encodeAnswer = (query: Query, { code, answers, authority, ttl }: Answer): Uint8Array => {
  const header = Buffer.alloc(HEADER);
  header.writeUInt16BE(query.id, 0);
  const authoritative = code === responseCode.ok || code === responseCode.noSuchName ? AUTHORITATIVE : 0;
  const recursion = query.recursionDesired ? RECURSION_DESIRED : 0;
  header.writeUInt16BE(RESPONSE | query.operation | authoritative | recursion | (code & 0xf), 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(answers.length, 6);
  header.writeUInt16BE(authority ? 1 : 0, 8);
  header.writeUInt16BE(query.edns === undefined ? 0 : 1, 10);
  // Root, OPT, our size, the upper bits of the code, version 0, no flags, no options.
  const edns = Buffer.of(0, 0, recordType.opt, EDNS_SIZE >> 8, EDNS_SIZE & 0xff, code >> 4, 0, 0, 0, 0, 0);
  return Buffer.concat([
    header,
    query.question,
    ...answers.map((record) => encodeRecord(QUESTION_NAME, record, ttl)),
    ...(authority ? [encodeRecord(authority.name, authority.record, ttl)] : []),
    ...(query.edns === undefined ? [] : [edns]),
  ]);
};
