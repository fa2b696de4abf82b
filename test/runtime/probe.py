"""What a function sees and what it is denied, told as one JSON object. It runs inside a container as its init.

A call's answer is `ok`, or the name of its errno; `killed N` where a signal ended the child that tried. Numbers of
calls are those of x86-64.
"""
import ctypes, errno, json, mmap, os, resource, signal, socket, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def named(number):
    return errno.errorcode.get(number, str(number))


def call(number, *arguments):
    words = [a if isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    return 'ok' if result >= 0 else named(ctypes.get_errno())


def attempt(action):
    try:
        action()
        return 'ok'
    except OSError as error:
        return named(error.errno) if error.errno else type(error).__name__


def in_child(action):
    """The answer of an action that may end the process, or leave a process behind."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, action().encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    text = os.read(reader, 100).decode()
    os.close(reader)
    return f'killed {os.WTERMSIG(status)}' if os.WIFSIGNALED(status) else text


def machine_code(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    return 'ok'


def clone(flags):
    result = libc.syscall(ctypes.c_long(56), ctypes.c_long(flags | signal.SIGCHLD), *[ctypes.c_long(0)] * 4)
    if result == 0:
        os._exit(0)
    if result > 0:
        os.waitpid(result, 0)
    return 'ok' if result > 0 else named(ctypes.get_errno())


def write_to(path, text='1'):
    def action():
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    return attempt(action)


def read_from(path):
    """`empty`, the answer of a failed read, or the text."""
    try:
        with open(path, 'rb') as file:
            text = file.read(65536).decode(errors='replace')
        return text if text else 'empty'
    except OSError as error:
        return named(error.errno)


def status_lines(*names):
    pairs = (line.split(':', 1) for line in read_from('/proc/self/status').splitlines())
    return {name: value.strip() for name, value in pairs if name in names}


def walk_up():
    return os.path.samestat(os.stat('/'.join(['..'] * 20)), os.stat('/'))


def fill(path, block):
    """Bytes until the file system is full."""
    written = 0
    try:
        with open(path, 'wb', buffering=0) as file:
            while True:
                written += file.write(block)
    except OSError as error:
        answer = named(error.errno)
    os.unlink(path)
    return {'bytes': written, 'answer': answer}


def fill_inodes(directory):
    made = 0
    try:
        while True:
            os.close(os.open(f'{directory}/f{made}', os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError as error:
        answer = named(error.errno)
    for number in range(made):
        os.unlink(f'{directory}/f{number}')
    return {'files': made, 'answer': answer}


def connect(family, kind, address):
    with socket.socket(family, kind) as sock:
        sock.settimeout(2)
        return attempt(lambda: sock.connect(address))


def socket_of(family, kind=socket.SOCK_RAW):
    return call(41, family, kind, 0)


def set_option(descriptor, level, option, high=0):
    value = ctypes.create_string_buffer(struct.pack('i', 1), 16)
    return call(54, descriptor, level | high, option | high, value, 4)


def open_until_full():
    opened = []
    try:
        while True:
            opened.append(os.open('/dev/null', os.O_RDONLY))
    except OSError as error:
        answer = named(error.errno)
    for descriptor in opened:
        os.close(descriptor)
    return {'descriptors': len(opened) + 3, 'answer': answer}


HIGH = 0x5555_0000_0000_0000 >> 16
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWPID = 0x20000, 0x10000000, 0x40000000, 0x20000000
buffer = ctypes.create_string_buffer(4096)


def identity():
    return {
        'arguments': sys.argv[1:],
        'environment': dict(os.environ),
        'directory': os.getcwd(),
        'ids': [os.getuid(), os.geteuid(), os.getgid(), os.getegid()],
        'groups': sorted(os.getgroups()),
        'hostname': os.uname().nodename,
        'umask': os.umask(0o022),
        'pid': os.getpid(),
        'stdin': os.read(0, 1).decode(),
    }


def process():
    return {
        'capabilities': status_lines('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'),
        'flags': status_lines('NoNewPrivs', 'Seccomp'),
        'uidMap': read_from('/proc/self/uid_map').split(),
        'pids': sorted(int(name) for name in os.listdir('/proc') if name.isdigit()),
        'killAll': attempt(lambda: os.kill(-1, signal.SIGKILL)),
        'descriptors': sorted(int(n) for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')),
        'upStaysIn': walk_up(),
        'cgroup': read_from('/proc/self/cgroup'),
        'mounts': [line.split()[4] for line in read_from('/proc/self/mountinfo').splitlines()],
        'oomScore': int(read_from('/proc/self/oom_score_adj')),
        'lowerOomScore': write_to('/proc/self/oom_score_adj', '-900'),
        'limits': {
            name: resource.getrlimit(getattr(resource, f'RLIMIT_{name}'))
            for name in ('CORE', 'FSIZE', 'MEMLOCK', 'NOFILE', 'MSGQUEUE') if hasattr(resource, f'RLIMIT_{name}')
        },
        'openFiles': open_until_full(),
    }


def files():
    return {
        'devices': sorted(os.listdir('/dev')),
        'shm': os.listdir('/dev/shm'),
        'sys': os.listdir('/sys') if os.path.isdir('/sys') else [],
        'writes': {path: attempt(lambda: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)))
                   for path in ('/x', '/etc/passwd', '/usr/bin/x', '/dev/x', '/control.sock.x')},
        'kernel': {path: write_to(path) for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger',
                   '/proc/sys/vm/drop_caches', '/proc/irq/default_smp_affinity')},
        'masked': {path: read_from(path) for path in ('/proc/kcore', '/proc/keys', '/proc/timer_list',
                   '/proc/sched_debug', '/proc/latency_stats', '/proc/interrupts')},
        'tmp': fill('/tmp/fill', bytes(65536)),
        'tmpInodes': fill_inodes('/tmp'),
        'tmpMode': oct(os.stat('/tmp').st_mode),
        'tmpRun': run_from_tmp(),
        'bigFile': resource.getrlimit(resource.RLIMIT_FSIZE)[0],
    }


def run_from_tmp():
    with open('/bin/busybox', 'rb') as source, open('/tmp/program', 'wb') as target:
        target.write(source.read())
    os.chmod('/tmp/program', 0o755)
    status = os.spawnv(os.P_WAIT, '/tmp/program', ['true'])
    os.unlink('/tmp/program')
    return status


def calls():
    null = b'/tmp\0'
    return {
        'unshareUser': call(272, CLONE_NEWUSER),
        'unshareNet': call(272, CLONE_NEWNET),
        'unshareMount': call(272, CLONE_NEWNS),
        'cloneUser': clone(CLONE_NEWUSER),
        'cloneNet': clone(CLONE_NEWNET),
        'clonePid': clone(CLONE_NEWPID),
        'cloneHigh': clone(CLONE_NEWNET | HIGH),
        'clonePlain': clone(0),
        'clone3': call(435, buffer, 88),
        'setns': call(308, 0, 0),
        'mount': call(165, b'none\0', null, b'tmpfs\0', 0, 0),
        'remount': call(165, b'none\0', b'/\0', 0, 32 | 4096, 0),
        'umount': call(166, b'/proc/keys\0', 2),
        'fsopen': call(430, b'tmpfs\0', 0),
        'openTree': call(428, -100, null, 1),
        'moveMount': call(429, -100, null, -100, null, 0),
        'chroot': call(161, null),
        'pivotRoot': call(155, null, null),
        'mknodBlock': call(133, b'/tmp/b\0', 0o060644, 8 << 8),
        'mknodAtCharacter': call(259, -100, b'/tmp/c\0', 0o020644, 1 << 8 | 1),
        'fifo': attempt(lambda: os.mkfifo('/tmp/fifo')),
        'ioUring': call(425, 8, buffer),
        'bpf': call(321, 0, buffer, 4),
        'perf': call(298, buffer, 0, -1, -1, 0),
        'userfaultfd': call(323, 0),
        'keyctl': call(250, 0, -3, 0),
        'addKey': call(248, b'user\0', b'a\0', b'b\0', 1, -3),
        'kexec': call(246, 0, 0, 0, 0),
        'initModule': call(175, buffer, 0, b'\0'),
        'openByHandle': call(304, 3, buffer, 0),
        'ptrace': call(101, 0, 0, 0, 0),
        'processVmReadv': call(310, 1, buffer, 0, buffer, 0, 0),
        'pidfdGetfd': call(438, 0, 0, 0),
        'swapon': call(167, null, 0),
        'reboot': call(169, 0xfee1dead, 672274793, 0x89abcdef, 0),
        'clockSettime': call(227, 0, buffer),
        'quotactl': call(179, 0, null, 0, buffer),
        'personality': call(135, 0xffffffff),
        'messageQueue': call(240, b'q\0', 0o100, 0o600, 0),
        'int80': in_child(lambda: machine_code(b'\xb8\x14\0\0\0\xcd\x80\xc3')),
        'x32': in_child(lambda: call(0x40000000 | 39)),
        'futureCall': call(5000),
    }


def network():
    families = {'PACKET': 17, 'ALG': 38, 'VSOCK': 40, 'NETLINK': 16, 'XDP': 44, 'KEY': 15, 'RDS': 21, 'TIPC': 30,
                'BLUETOOTH': 31}
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    number = sock.fileno()
    tcp, tcp4 = socket.SOCK_STREAM, socket.AF_INET
    refused = {'MARK': (1, 36), 'BINDTODEVICE': (1, 25), 'ATTACH_FILTER': (1, 26), 'ATTACH_BPF': (1, 50),
               'TCP_REPAIR': (6, 19), 'TCP_ULP': (6, 31), 'TCP_CONGESTION': (6, 13), 'TCP_FASTOPEN': (6, 23),
               'TCP_FASTOPEN_CONNECT': (6, 30), 'IPV6_ADDRFORM': (41, 1), 'IPV6_TRANSPARENT': (41, 75)}
    name = struct.pack('=HHI16sI', 10, socket.htons(8080), 0, socket.inet_pton(10, '::1'), 0)
    return {
        'families': {key: socket_of(value) for key, value in families.items()},
        'interfaces': [line.split(':')[0].strip() for line in read_from('/proc/net/dev').splitlines()[2:]],
        'unixSockets': len(read_from('/proc/net/unix').splitlines()) - 1,
        'reach': {
            '127.0.0.1:8080': connect(tcp4, tcp, ('127.0.0.1', 8080)),
            '[::1]:8080': connect(socket.AF_INET6, tcp, ('::1', 8080)),
            '[fd00:faa5:0:100::1]:53': connect(socket.AF_INET6, socket.SOCK_DGRAM, ('fd00:faa5:0:100::1', 53)),
            '169.254.169.254:80': connect(tcp4, tcp, ('169.254.169.254', 80)),
            '192.0.2.1:443': connect(tcp4, tcp, ('192.0.2.1', 443)),
        },
        'resolve': attempt(lambda: socket.getaddrinfo('example.com', 80)),
        'listeners': {
            'bind': call(49, number, name, len(name)),
            'listen': call(50, number, 1),
            'accept': call(43, number, 0, 0),
            'accept4': call(288, number, 0, 0, 0),
        },
        'fastOpen': {
            'sendto': call(44, number, b'x', 1, 0x20000000, name, len(name)),
            'sendtoHigh': call(44, number, b'x', 1, 0x20000000 | HIGH, name, len(name)),
            'sendmsg': call(46, number, buffer, 0x20000000),
            'sendmmsg': call(307, number, buffer, 1, 0x20000000),
        },
        'ioctls': {
            'SIOCGIFCONF': call(16, number, 0x8912, buffer),
            'SIOCGIFHWADDR': call(16, number, 0x8927, buffer),
            'SIOCETHTOOL': call(16, number, 0x8946, buffer),
            'SIOCGSKNS': call(16, number, 0x894c, buffer),
            'SIOCGIFCONF with a high half': call(16, number, 0x8912 | HIGH, buffer),
        },
        'fionread': call(16, 0, 0x541b, buffer),
        'fionbio': call(16, number, 0x5421, struct.pack('i', 1)),
        'options': {key: set_option(number, *pair) for key, pair in refused.items()},
        'optionsHigh': {key: set_option(number, *pair, high=HIGH) for key, pair in refused.items()},
        'noDelay': set_option(number, 6, 1),
        'keepAlive': set_option(number, 1, 9),
        'socketpair': attempt(lambda: [end.close() for end in socket.socketpair()]),
    }


topics = {'identity': identity, 'process': process, 'files': files, 'calls': calls, 'network': network}
if __name__ == '__main__':
    wanted = sys.argv[1].split(',')
    print(json.dumps({topic: topics[topic]() for topic in wanted}))
