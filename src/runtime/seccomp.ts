/**
 * The seccomp profile of a container, as data: `linux.seccomp` of the OCI runtime spec 1.0.2 ("Seccomp").
 * It is an allow-list. A call on neither list fails with ENOSYS, so that a libc which tries a new call first
 * falls back; a call that is refused on purpose fails with EPERM, as people expect it. Only the native
 * architecture's calls exist: `int 0x80` and x32 end the process.
 *
 * A filter sees argument registers, 64 bits wide, where the kernel reads an int, 32. So what must be refused is
 * never described by a comparison (0x1_0000_0013 is not equal to 0x13 for the filter and is for the kernel) but
 * by its complement in masked bits, which ignore the upper half.
 */
import type { Contract } from './container.ts'

export type Architecture = 'x64' | 'arm64'

export interface SeccompArgument {
  readonly index: number
  /** For SCMP_CMP_MASKED_EQ the mask, else the value compared with. */
  readonly value: number
  /** For SCMP_CMP_MASKED_EQ what the masked argument must equal. */
  readonly valueTwo?: number
  readonly op: 'SCMP_CMP_EQ' | 'SCMP_CMP_GT' | 'SCMP_CMP_MASKED_EQ'
}

export interface SeccompRule {
  readonly names: readonly string[]
  readonly action: 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO' | 'SCMP_ACT_NOTIFY'
  readonly errnoRet?: number
  readonly args?: readonly SeccompArgument[]
}

export interface SeccompProfile {
  /** Where the runtime sends the descriptor of supervised calls. */
  readonly listenerPath?: string
  readonly defaultAction: 'SCMP_ACT_ERRNO'
  readonly defaultErrnoRet: number
  readonly architectures: readonly string[]
  readonly syscalls: readonly SeccompRule[]
}

const EPERM = 1
const ENOSYS = 38
const EAFNOSUPPORT = 97

/** What any program may do, by topic. */
const allowed = {
  files: `access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync flock fstat fstatfs fsync
    ftruncate futimesat getcwd getdents getdents64 lchown link linkat lseek lstat mkdir mkdirat newfstatat open
    openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename
    renameat renameat2 rmdir sendfile splice stat statfs statx symlink symlinkat sync sync_file_range syncfs tee
    truncate umask unlink unlinkat utime utimensat utimes vmsplice write writev`,
  attributes: `fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat
    llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat`,
  waiting: `epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch pipe pipe2 poll ppoll pselect6 select signalfd
    signalfd4`,
  asynchronousFiles: 'io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit',
  memory: `brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall
    mmap mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages`,
  processes: `execve execveat exit exit_group fork getpgid getpgrp getpid getppid getpriority getrlimit getrusage
    getsid gettid kill pause pidfd_open pidfd_send_signal prctl prlimit64 setpgid setpriority setrlimit setsid
    tgkill times tkill vfork wait4 waitid`,
  threads: `futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list rseq set_robust_list
    set_tid_address`,
  signals: `restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_tgsigqueueinfo sigaltstack`,
  scheduling: `getcpu ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield`,
  time: `alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time
    timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime
    timerfd_settime`,
  // Without capabilities these change nothing that the process may not change anyway.
  identity: `capget capset getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid setgid
    setgroups setregid setresgid setresuid setreuid setuid`,
  confinement: 'landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp',
  machine: 'getrandom sysinfo uname',
  sharedMemory: 'msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget',
  // `connect` reaches /control.sock. What it could do to a passed socket is the firewall's to stop: a filter cannot
  // read an address.
  sockets: `connect getpeername getsockname getsockopt recvfrom recvmmsg recvmsg shutdown socketpair`,
} as const

const architectures: Readonly<Record<Architecture, { readonly name: string; readonly allowed: string }>> = {
  x64: { name: 'SCMP_ARCH_X86_64', allowed: 'arch_prctl' },
  arm64: { name: 'SCMP_ARCH_AARCH64', allowed: '' },
}

/** What is refused on purpose. POSIX message queues are merely absent: their rlimit is 0. */
const refused = {
  namespacesAndMounts: `chroot fsconfig fsmount fsopen fspick listmount mount mount_setattr move_mount open_tree
    pivot_root setns statmount umount2 unshare`,
  otherProcesses: `kcmp pidfd_getfd process_madvise process_mrelease process_vm_readv process_vm_writev ptrace`,
  kernel: `acct bpf delete_module finit_module init_module ioperm iopl kexec_file_load kexec_load lookup_dcookie
    modify_ldt perf_event_open personality reboot swapoff swapon syslog userfaultfd`,
  machine: `adjtimex clock_adjtime clock_settime sethostname setdomainname settimeofday vhangup`,
  files: 'fanotify_init fanotify_mark name_to_handle_at open_by_handle_at quotactl quotactl_fd',
  memoryPolicy: 'get_mempolicy mbind migrate_pages move_pages set_mempolicy',
  keys: 'add_key keyctl request_key',
  rings: 'io_uring_enter io_uring_register io_uring_setup',
} as const

interface ContractCalls {
  readonly allowed: string
  readonly refused: string
  /** Decided by us, one by one, while the caller waits: seccomp_unotify(2). */
  readonly supervised: string
}

/**
 * What each contract adds. `fd` instances are given connections and have no use for a listener; `listen` instances
 * bind a port and get the host's listener for it (src/contracts/listen.ts).
 */
const contracts: Readonly<Record<Contract, ContractCalls>> = {
  fd: { allowed: '', refused: 'accept accept4 bind listen', supervised: '' },
  listen: { allowed: 'accept accept4', refused: '', supervised: 'bind listen' },
}

/** Options that tune one's own connection, as `[level, options]`; see socket(7), tcp(7), ip(7), ipv6(7), udp(7). */
const socketOptions: readonly (readonly [level: number, options: readonly number[]])[] = [
  // SOL_SOCKET. Absent: SO_BINDTODEVICE 25, SO_ATTACH_* 26, 50, 51, 52, SO_MARK 36, SO_BINDTOIFINDEX 62.
  [1, [1, 2, 5, 6, 7, 8, 9, 10, 12, 13, 16, 18, 20, 21, 29, 34, 35, 37, 46, 47, 49, 60, 66, 67]],
  // IPPROTO_IP: TOS, TTL, MTU discovery, error and packet information, multicast
  [0, [1, 2, 8, 10, 11, 12, 13, 14, 32, 33, 34, 35, 36]],
  // IPPROTO_TCP. Absent: TCP_CONGESTION 13, MD5SIG 14, REPAIR* 19, 20, 22, 29, FASTOPEN* 23, 30, 33, 34, ULP 31.
  [6, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 17, 18, 24, 25, 27, 32, 35, 36, 37]],
  // IPPROTO_UDP: CORK, SEGMENT, GRO
  [17, [1, 103, 104]],
  // IPPROTO_IPV6. Absent: IPV6_ADDRFORM 1, the options that need a capability.
  [41, [2, 4, 8, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 49, 51, 66, 67]],
]

const SOL_SOCKET = 1
const SO_REUSEPORT = 15
const MSG_FASTOPEN = 0x2000_0000
/** CLONE_NEW* but CLONE_NEWTIME, whose bit clone(2) reads as part of the exit signal. */
const newNamespaces = 0x7e02_0000
const S_IFMT = 0o170000
const S_IFIFO = 0o010000
const low32 = 0xffff_ffff

const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== '')
const list = (topics: Readonly<Record<string, string>>): string[] => Object.values(topics).flatMap(words)

const allow = (names: readonly string[], ...args: SeccompArgument[]): SeccompRule => ({
  names,
  action: 'SCMP_ACT_ALLOW',
  ...(args.length === 0 ? {} : { args }),
})
const supervise = (names: readonly string[]): SeccompRule => ({ names, action: 'SCMP_ACT_NOTIFY' })
const refuse = (names: readonly string[], errnoRet: number, ...args: SeccompArgument[]): SeccompRule => ({
  names,
  action: 'SCMP_ACT_ERRNO',
  errnoRet,
  ...(args.length === 0 ? {} : { args }),
})
const masked = (index: number, value: number, valueTwo: number): SeccompArgument => ({
  index,
  value,
  valueTwo,
  op: 'SCMP_CMP_MASKED_EQ',
})
/** Numbers past 31 bits: JavaScript's own bit operators would make them negative. */
const hasBit = (value: number, bit: number): boolean => Math.floor(value / bit) % 2 === 1
const bits = (mask: number): number[] =>
  Array.from({ length: 32 }, (_, position) => 2 ** position).filter((bit) => hasBit(mask, bit))
/** What a masked argument has when it differs from `value` in `bit`. */
const otherThan = (value: number, bit: number): number => (hasBit(value, bit) ? 0 : bit)

/** Allows a call while all bits of `mask` in an argument are clear; refuses it with EPERM when one is set. */
const onlyWithoutBits = (name: string, index: number, mask: number): SeccompRule[] => [
  allow([name], masked(index, mask, 0)),
  ...bits(mask).map((bit) => refuse([name], EPERM, masked(index, bit, bit))),
]

/** Refuses a call while `argument & mask == value`; allows it as soon as one bit of the mask differs. */
const exceptMasked = (name: string, index: number, mask: number, value: number): SeccompRule[] => [
  refuse([name], EPERM, masked(index, mask, value)),
  ...bits(mask).map((bit) => allow([name], masked(index, bit, otherThan(value, bit)))),
]

/** Allows a call while `argument & mask == value`; refuses it with EPERM as soon as one bit of the mask differs. */
const onlyMasked = (name: string, index: number, mask: number, value: number): SeccompRule[] => [
  allow([name], masked(index, mask, value)),
  ...bits(mask).map((bit) => refuse([name], EPERM, masked(index, bit, otherThan(value, bit)))),
]

/** `socket` for UNIX 1, IPv4 2 and IPv6 10 only; any other family answers as a kernel without it does. */
const socketFamilies: readonly SeccompRule[] = [
  ...[1, 2, 10].map((family) => allow(['socket'], masked(0, low32, family))),
  ...[0, 3, 4, 5, 6, 7, 8, 9].map((family) => refuse(['socket'], EAFNOSUPPORT, masked(0, low32, family))),
  refuse(['socket'], EAFNOSUPPORT, { index: 0, value: 10, op: 'SCMP_CMP_GT' }),
]

const withArguments: readonly SeccompRule[] = [
  ...socketFamilies,
  ...socketOptions.flatMap(([level, options]) =>
    options.map((option) => allow(['setsockopt'], masked(1, low32, level), masked(2, low32, option))),
  ),
  // The host's listeners share their port by this option, and a holder must not take it away from them. Servers set
  // it before they bind; what they bind is replaced by such a listener.
  { ...refuse(['setsockopt'], 0, masked(1, low32, SOL_SOCKET), masked(2, low32, SO_REUSEPORT)) },
  ...onlyWithoutBits('sendto', 3, MSG_FASTOPEN),
  ...onlyWithoutBits('sendmsg', 2, MSG_FASTOPEN),
  ...onlyWithoutBits('sendmmsg', 3, MSG_FASTOPEN),
  // SIOC*: a socket made by the host would list the host's interfaces and neighbours.
  ...exceptMasked('ioctl', 1, 0xffff_ff00, 0x8900),
  ...onlyWithoutBits('clone', 0, newNamespaces),
  ...onlyMasked('mknod', 1, S_IFMT, S_IFIFO),
  ...onlyMasked('mknodat', 2, S_IFMT, S_IFIFO),
]

/**
 * The profile of a contract's containers on an architecture; `listenerPath` is for contracts that supervise calls.
 * Same arguments, same value.
 */
export function renderSeccomp(
  contract: Contract,
  architecture: Architecture,
  listenerPath?: string,
): SeccompProfile {
  const native = architectures[architecture]
  const added = contracts[contract]
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: ENOSYS,
    architectures: [native.name],
    ...(listenerPath === undefined ? {} : { listenerPath }),
    syscalls: [
      allow([...list(allowed), ...words(native.allowed), ...words(added.allowed)].sort()),
      refuse([...list(refused), ...words(added.refused)].sort(), EPERM),
      ...(added.supervised === '' ? [] : [supervise(words(added.supervised))]),
      // The structure clone3 takes cannot be read by a filter; without it libc calls clone.
      refuse(['clone3'], ENOSYS),
      ...withArguments,
    ],
  }
}
