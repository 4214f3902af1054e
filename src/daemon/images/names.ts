/** What images are called: by a plain name, as the catalog does, or by a reference in its shortest form. */
import { BangerError } from "../../contract/errors.ts";
import { isName } from "../../contract/names.ts";
import { parseReference } from "../../oci/reference.ts";

/**
 * The name under which an image is kept that is called so: plain names as they are, `docker.io/library/alpine:3` as `alpine:3`.
 * @returns undefined for what is no name; as a path it could lead anywhere
 */
export const keptName = (text: string): string | undefined => (isName(text) ? text : parseReference(text)?.name);

/** @throws USAGE */
export const checkImageName = (text: string): string => {
  const name = keptName(text);
  if (name !== undefined) return name;
  throw new BangerError("USAGE", `${JSON.stringify(text)} is no name for an image`, {
    hint: "use a-z, 0-9 and `-`, as in my-image, or a reference such as my-app:1.0",
  });
};
