"""What a SuperNode finds as `flwr-clientapp`: `python -I -S ask_clientapp.py SOCKET ARGUMENTS…`.

It passes its arguments and its output on to `forked_clientapp.py`, and ends with the status that comes back. Where that
is not there, it becomes `quick_clientapp.py`. Few imports: starting it takes 0.02 s.
"""

import os
import socket
import sys

MODULE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "quick_clientapp.py")


def main(path: str, arguments: list[str]) -> int:
    folder, name = os.path.split(path)
    home = os.getcwd()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            os.chdir(folder)  # a longer path is refused
            try:
                connection.connect(name)
            finally:
                os.chdir(home)
            line = b"".join(os.fsencode(argument) + b"\0" for argument in arguments)
            socket.send_fds(connection, [len(line).to_bytes(4, "big")], [sys.stdout.fileno(), sys.stderr.fileno()])
            connection.sendall(line)
        except OSError:
            os.execv(sys.executable, [sys.executable, "-P", MODULE, *arguments])
        status = connection.recv(1)
    return status[0] if status else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
