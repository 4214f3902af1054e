import assert from "node:assert/strict";
import { test } from "node:test";
import { environmentFile, environmentFor } from "./guest.ts";

const secret = {
  name: "TOKEN",
  hosts: ["api.example.com"],
  headers: ["authorization"],
  placeholder: "banger_secret_0",
};

test("a guest's variables: its placeholders, the proxy, and the file of what it trusts", () => {
  const variables = environmentFor([secret], "/etc/bundle.crt");
  assert.equal(variables.TOKEN, "banger_secret_0");
  for (const name of ["HTTP_PROXY", "https_proxy"]) assert.equal(variables[name], "http://127.0.0.1:42070");
  for (const name of ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"])
    assert.equal(variables[name], "/etc/bundle.crt");
  assert.match(variables.NO_PROXY ?? "", /127\.0\.0\.1.*\.vm/);
  assert.deepEqual(environmentFor([], "/etc/bundle.crt"), {});
});

test("they have one marked part of /etc/environment, and all else there is left as it is", () => {
  for (const before of ["", "PATH=/bin\n", "PATH=/bin", '# mine\nLANG="C"\n\n']) {
    const first = environmentFile(before, { A: "1", B: "2" });
    assert.ok(first.startsWith(before));
    assert.match(first, /\nA=1\nB=2\n# banger: end\n$/);
    const second = environmentFile(`${first}LATER=x\n`, { A: "3" });
    assert.ok(second.includes("LATER=x\n") && second.includes("A=3\n") && !second.includes("B=2"));
    assert.equal(second.split("# banger: end").length, 2);
    const ended = before === "" || before.endsWith("\n") ? before : `${before}\n`;
    assert.equal(environmentFile(first, {}), ended);
    assert.equal(environmentFile(before, {}), before);
  }
  // Half of a marked part is somebody's own text.
  const half = "# banger: secrets of this VM (placeholders), do not edit\nA=1\n";
  assert.ok(environmentFile(half, { B: "2" }).startsWith(half));
});
