"""An FTP server with faults for the tests of the aoi kind.

Reads its configuration as one line of JSON from standard input, prints its port, and serves until it is killed.
"""

import json
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.filesystems import AbstractedFS
from pyftpdlib.handlers import DTPHandler, FTPHandler
from pyftpdlib.servers import FTPServer

config = json.loads(sys.stdin.readline())
encoding = config.get("encoding", "utf8")
left = {"drops": config.get("drops", 0), "busy": config.get("busy", 0)}
command_log = open(config["log"], "a", buffering=1)


class Files(AbstractedFS):
    """Names in the encoding of the server, and some that no folder has."""

    def format_mlsx(self, basedir, listing, *args, **kwargs):
        for line in super().format_mlsx(basedir, listing, *args, **kwargs):
            yield line.decode("utf8").encode(encoding)
        for name in config.get("evil", []):
            line = "type=file;size=4;modify=20180725010203; %s\r\n" % name
            yield line.encode(encoding)

    def format_list(self, basedir, listing, ignore_err=True):
        for line in super().format_list(basedir, listing, ignore_err):
            yield line.decode("utf8").encode(encoding)


class Data(DTPHandler):
    """Drops both connections after some bytes, or sends them slowly."""

    ac_out_buffer_size = 4096

    def use_sendfile(self):
        return False

    def send(self, chunk):
        limit = config.get("drop_after", 0)
        is_file = self.file_obj is not None
        if is_file and left["drops"] > 0 and self.tot_bytes_sent >= limit:
            left["drops"] -= 1
            self.cmd_channel.close()
            return 0
        if is_file and config.get("freeze_after") is not None and self.tot_bytes_sent >= config["freeze_after"]:
            return 0
        return super().send(chunk)


class Control(FTPHandler):
    abstracted_fs = Files
    dtp_handler = Data
    use_sendfile = False
    auth_failed_timeout = 0.05

    def decode(self, line):
        return line.decode(encoding, self.unicode_errors)

    def push(self, text):
        super(FTPHandler, self).push(text.encode(encoding))

    def handle(self):
        command_log.write("CONNECT\n")
        if left["busy"] > 0:
            left["busy"] -= 1
            self.respond("421 Too many connections, come back later.")
            self.close_when_done()
            return
        super().handle()

    def ftp_EPSV(self, line):
        if "dead_epsv" in config:
            self.respond("229 Entering extended passive mode (|||%d|)." % config["dead_epsv"])
            return
        super().ftp_EPSV(line)

    def pre_process_command(self, line, cmd, arg):
        if cmd != "PASS":
            command_log.write("%s %s\n" % (cmd, arg))
        if cmd in config.get("unknown", []):
            self.respond("500 Command %s not understood." % cmd)
            return
        super().pre_process_command(line, cmd, arg)


authorizer = DummyAuthorizer()
for user in config["users"]:
    authorizer.add_user(user["name"], user["password"], user["home"], perm="elr")
Control.authorizer = authorizer
if "masquerade" in config:
    Control.masquerade_address = config["masquerade"]

server = FTPServer(("127.0.0.1", 0), Control)
print(server.address[1], flush=True)
server.serve_forever(handle_exit=False)
