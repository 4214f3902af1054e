"""Prints a line of JSON for each entry below a folder: everything that an image must keep. Names and targets in hex."""
import hashlib, json, os, stat, sys

root = os.fsencode(sys.argv[1])
kinds = [(stat.S_ISDIR, "directory"), (stat.S_ISREG, "file"), (stat.S_ISLNK, "symlink"), (stat.S_ISCHR, "char"),
         (stat.S_ISBLK, "block"), (stat.S_ISFIFO, "fifo"), (stat.S_ISSOCK, "socket")]


def describe(path, name):
    s = os.lstat(path)
    kind = next(label for test, label in kinds if test(s.st_mode))
    entry = {"path": name.hex(), "type": kind, "mode": s.st_mode & 0o7777, "uid": s.st_uid, "gid": s.st_gid,
             "mtime": str(s.st_mtime_ns), "inode": s.st_ino}
    if kind == "file":
        entry["size"] = s.st_size
        with open(path, "rb") as file:
            entry["sha256"] = hashlib.sha256(file.read()).hexdigest()
    if kind == "symlink":
        entry["target"] = os.readlink(path).hex()
    if kind in ("char", "block"):
        entry["device"] = f"{os.major(s.st_rdev)}:{os.minor(s.st_rdev)}"
    attributes = {}
    for attribute in os.listxattr(path, follow_symlinks=False):
        attributes[attribute] = os.getxattr(path, attribute, follow_symlinks=False).hex()
    entry["xattrs"] = attributes
    print(json.dumps(entry))


for folder, folders, files in os.walk(root):
    for name in folders + files:
        path = os.path.join(folder, name)
        describe(path, os.path.relpath(path, root))
