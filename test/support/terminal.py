"""A real terminal with a program in it: terminal.py COLUMNS ROWS -- PROGRAM ARGUMENT...

Takes lines of JSON on stdin: {"write": text}, {"resize": [columns, rows]}, {"signal": number}, {"close": true}, {"modes": true}.
Writes lines of JSON: {"start": modes, "pid": n}, {"data": base64}, {"modes": modes}, {"closed": true},
{"end": {"status": n or null, "signal": n or null, "modes": modes or null}}.
`modes` is all that tcgetattr knows of the terminal.
"""

import base64, fcntl, json, os, pty, select, signal, struct, sys, termios

columns, rows, argv = int(sys.argv[1]), int(sys.argv[2]), sys.argv[4:]


def say(line):
    os.write(1, json.dumps(line).encode() + b"\n")


def size(columns, rows):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def modes():
    values = termios.tcgetattr(slave)
    return json.dumps([*values[:6], [c if isinstance(c, int) else c.hex() for c in values[6]]])


master, slave = pty.openpty()
size(columns, rows)
# Not what a terminal is reset to: whoever only makes it sane again has not restored it.
unusual = termios.tcgetattr(slave)
unusual[0] |= termios.IXANY
unusual[3] &= ~termios.ECHOCTL
unusual[6][termios.VERASE] = b"\x08"
termios.tcsetattr(slave, termios.TCSANOW, unusual)
before = modes()

ended_read, ended_write = os.pipe()
os.set_blocking(ended_write, False)
signal.set_wakeup_fd(ended_write)
signal.signal(signal.SIGCHLD, lambda *_: None)

pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for descriptor in (0, 1, 2):
        os.dup2(slave, descriptor)
    os.closerange(3, 256)
    signal.set_wakeup_fd(-1)
    os.execvp(argv[0], argv)

say({"start": before, "pid": pid})
commands = b""
is_open = True


def output():
    """False once the terminal has nothing more to say."""
    try:
        data = os.read(master, 65536)
    except OSError:
        return False
    if data:
        say({"data": base64.b64encode(data).decode()})
    return bool(data)


def obey(command):
    global is_open
    if "write" in command:
        os.write(master, command["write"].encode())
    elif "resize" in command:
        size(*command["resize"])
    elif "signal" in command:
        os.kill(pid, command["signal"])
    elif "modes" in command:
        say({"modes": modes()})
    elif "close" in command:
        is_open = False
        os.close(slave)
        os.close(master)
        say({"closed": True})


while True:
    ready, _, _ = select.select([0, ended_read] + ([master] if is_open else []), [], [])
    if is_open and master in ready:
        output()
    if 0 in ready:
        chunk = os.read(0, 65536)
        if not chunk:
            # Our test has gone: what it started must not stay.
            os.kill(pid, signal.SIGKILL)
            break
        commands += chunk
        *lines, commands = commands.split(b"\n")
        for line in lines:
            obey(json.loads(line))
    if ended_read in ready:
        os.read(ended_read, 64)
        found, status = os.waitpid(pid, os.WNOHANG)
        if found == 0:
            continue
        after = None
        if is_open:
            after = modes()
            # The last other end of the terminal: its output now has an end.
            os.close(slave)
            while output():
                pass
        signalled = os.WIFSIGNALED(status)
        say(
            {
                "end": {
                    "status": None if signalled else os.WEXITSTATUS(status),
                    "signal": os.WTERMSIG(status) if signalled else None,
                    "modes": after,
                }
            }
        )
        break
