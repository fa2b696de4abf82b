import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Architecture, renderSeccomp, type SeccompArgument } from './seccomp.ts'

const matches = ({ index, op, value, valueTwo = 0 }: SeccompArgument, args: readonly bigint[]): boolean => {
  const argument = args[index] ?? 0n
  if (op === 'SCMP_CMP_MASKED_EQ') return (argument & BigInt(value)) === BigInt(valueTwo)
  return op === 'SCMP_CMP_GT' ? argument > BigInt(value) : argument === BigInt(value)
}

/** What the profile answers a call with: every rule that matches, by what it says. */
function answers(name: string, args: readonly (number | bigint)[] = [], architecture: Architecture = 'x64') {
  const { syscalls } = renderSeccomp('fd', architecture)
  const values = args.map(BigInt)
  const hits = syscalls.filter(
    (rule) => rule.names.includes(name) && (rule.args ?? []).every((argument) => matches(argument, values)),
  )
  return [...new Set(hits.map((rule) => (rule.action === 'SCMP_ACT_ALLOW' ? 'allowed' : rule.errnoRet)))]
}

const EPERM = [1]
const EAFNOSUPPORT = [97]
const allowed = ['allowed']
const unlisted: unknown[] = []
/** The kernel reads an int and ignores this; a filter that compared would be passed by it. */
const garbage = 0x5555_0000_0000n

test('a call that is on no list fails with ENOSYS, and only native calls exist', () => {
  const profile = renderSeccomp('fd', 'x64')
  assert.equal(profile.defaultAction, 'SCMP_ACT_ERRNO')
  assert.equal(profile.defaultErrnoRet, 38)
  assert.deepEqual(profile.architectures, ['SCMP_ARCH_X86_64'])
  assert.deepEqual(renderSeccomp('fd', 'arm64').architectures, ['SCMP_ARCH_AARCH64'])
  assert.deepEqual(answers('clone3'), [38])
})

test('no call is listed twice: a rule without arguments would swallow those with arguments', () => {
  const { syscalls } = renderSeccomp('fd', 'x64')
  const plain = syscalls.filter(({ args }) => args === undefined).flatMap(({ names }) => names)
  assert.deepEqual(plain, [...new Set(plain)])
  const filtered = new Set(syscalls.filter(({ args }) => args !== undefined).flatMap(({ names }) => names))
  assert.deepEqual(
    plain.filter((name) => filtered.has(name)),
    [],
  )
})

test('what reaches the kernel, other processes or devices is refused (P05 to P10, P26, P27)', () => {
  const calls = `unshare setns mount umount2 fsopen fsmount open_tree move_mount chroot pivot_root ptrace
    process_vm_readv process_vm_writev pidfd_getfd bpf perf_event_open userfaultfd keyctl add_key request_key
    kexec_load init_module finit_module open_by_handle_at swapon reboot clock_settime quotactl personality
    io_uring_setup io_uring_enter`
  for (const call of calls.trim().split(/\s+/)) assert.deepEqual(answers(call), EPERM, call)
})

test('an `fd` instance opens no listener (P36, P37)', () => {
  for (const call of ['bind', 'listen', 'accept', 'accept4']) assert.deepEqual(answers(call), EPERM, call)
})

test('what every program does is allowed', () => {
  const calls =
    'read write openat mmap execve wait4 connect recvmsg getsockopt futex epoll_wait getrandom kill'
  for (const call of calls.split(' ')) assert.deepEqual(answers(call), allowed, call)
  assert.deepEqual(answers('arch_prctl'), allowed)
  assert.deepEqual(answers('arch_prctl', [], 'arm64'), unlisted)
})

test('socket() makes UNIX, IPv4 and IPv6 sockets only (P28)', () => {
  for (let family = 0; family < 60; family += 1) {
    const expected = [1, 2, 10].includes(family) ? allowed : EAFNOSUPPORT
    assert.deepEqual(answers('socket', [family]), expected, `family ${family}`)
  }
})

test('ioctl() refuses every SIOC command, whatever the upper half of the register holds (P40, P41)', () => {
  for (const command of [0x8900, 0x8912, 0x8927, 0x894c, 0x89ff]) {
    assert.deepEqual(answers('ioctl', [3, command]), EPERM)
    assert.deepEqual(answers('ioctl', [3, garbage | BigInt(command)]), EPERM)
  }
  // FIONREAD, FIONBIO, TCGETS, RNDGETENTCNT, FS_IOC_GETFLAGS, FICLONE
  for (const command of [0x541b, 0x5421, 0x5401, 0x80045200, 0x80086601, 0x40049409, 0x88ff, 0x8a00, 0x18900])
    assert.deepEqual(answers('ioctl', [3, command]), allowed, command.toString(16))
})

test('sends refuse MSG_FASTOPEN and no other flag (P39)', () => {
  for (const [call, index] of [
    ['sendto', 3],
    ['sendmsg', 2],
    ['sendmmsg', 3],
  ] as const) {
    const withFlags = (flags: bigint) =>
      answers(
        call,
        Array.from({ length: 4 }, (_, i) => (i === index ? flags : 0n)),
      )
    assert.deepEqual(withFlags(0n), allowed)
    assert.deepEqual(withFlags(0x4000n), allowed)
    assert.deepEqual(withFlags(0x2000_0000n), EPERM)
    assert.deepEqual(withFlags(garbage | 0x2000_4000n), EPERM)
  }
})

test('setsockopt() sets what tunes a connection and nothing else (P42)', () => {
  const tuning = [
    [1, 2],
    [1, 9],
    [1, 13],
    [6, 1],
    [6, 4],
    [41, 26],
    [0, 1],
  ] as const
  for (const [level, option] of tuning) assert.deepEqual(answers('setsockopt', [3, level, option]), allowed)
  const refused = [
    ...[25, 26, 36, 50, 51, 52, 62].map((option) => [1, option] as const),
    ...[13, 14, 19, 20, 22, 23, 29, 30, 31, 33, 34, 38].map((option) => [6, option] as const),
    [0, 19],
    [41, 1],
    [41, 75],
    [263, 1],
  ] as const
  for (const [level, option] of refused) {
    assert.deepEqual(answers('setsockopt', [3, level, option]), unlisted, `${level} ${option}`)
    assert.deepEqual(answers('setsockopt', [3, garbage | BigInt(level), garbage | BigInt(option)]), unlisted)
  }
})

test('clone() makes processes and threads, never a namespace (P06)', () => {
  assert.deepEqual(answers('clone', [0x11]), allowed)
  assert.deepEqual(answers('clone', [0x3d0f00]), allowed)
  for (const flag of [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
    assert.deepEqual(answers('clone', [garbage | BigInt(flag + 0x11)]), EPERM, flag.toString(16))
})

test('mknod() makes FIFOs and no device (P10)', () => {
  for (const [call, mode] of [
    ['mknod', 1],
    ['mknodat', 2],
  ] as const) {
    const withMode = (value: number) =>
      answers(
        call,
        [0, 0, 0].map((_, index) => (index === mode ? value : 0)),
      )
    assert.deepEqual(withMode(0o010644), allowed)
    for (const value of [0o060644, 0o020644, 0o100644, 0o140644, 0o644])
      assert.deepEqual(withMode(value), EPERM)
  }
})
