/**
 * The root that GNU tar runs in. The walls, the strongest first:
 *
 * 1. a user namespace: root inside is an ordinary, unused id outside; it owns nothing but the layer's directory;
 * 2. a root of its own, holding the layer's directory and, read-only, the host's programs and libraries: no other
 *    file of the host has a name in there; no network, no processes, no IPC but its own;
 * 3. of the capabilities over its own files only those that restoring owners and modes takes, and no new ones;
 * 4. bounds on memory, files and time;
 * 5. the stream itself, in which every name has been checked ({@link ./layer-stream.ts}).
 *
 * Everything below runs within the first of them: no privileged program ever meets the layer's directory.
 */

/**
 * Fixed text: nothing is ever put into it. Its working directory, which no process in the namespace could reach by
 * name, is the layer's. The mount under /tmp is this namespace's own. `umount` reads /proc to do its work. The limit
 * counts for this user namespace alone; where /proc/sys cannot be written, the other walls have to do.
 */
const script = `
set -eu
umask 022
{ echo 0 > /proc/sys/user/max_user_namespaces; } 2>/dev/null || :
mount -n -t tmpfs -o mode=755,size=64k,nr_inodes=32 unpack /tmp
mkdir /tmp/layer /tmp/old /tmp/proc
for directory in bin lib lib64 usr; do
  if [ -L "/$directory" ]; then
    ln -s "$(readlink "/$directory")" "/tmp/$directory"
  elif [ -d "/$directory" ]; then
    mkdir "/tmp/$directory"
    mount -n --rbind "/$directory" "/tmp/$directory"
    mount -n -o remount,bind,ro,nosuid,nodev "/tmp/$directory"
  fi
done
mount -n --rbind /proc /tmp/proc
mount -n --no-canonicalize --bind . /tmp/layer
mount -n -o remount,bind,nosuid,nodev,noexec /tmp/layer
cd /tmp
pivot_root . old
umount -n -l /old
umount -n -l /proc
rmdir /old /proc
ulimit -c 0
ulimit -n 256
ulimit -v 2097152
exec setpriv --no-new-privs --inh-caps -all --bounding-set -all,+chown,+dac_override,+fowner -- "$@"
`

/** Descriptor under which the unpacker gets its user namespace. */
export const namespaceDescriptor = 3

/** Program and arguments that run `command` in such a root. */
export const inUnpackRoot = (command: readonly string[]): readonly [string, ...string[]] => [
  'nsenter',
  `--user=/proc/self/fd/${namespaceDescriptor}`,
  '--setuid=0',
  '--setgid=0',
  '--',
  'unshare',
  '--mount',
  '--net',
  '--ipc',
  '--uts',
  '--pid',
  '--fork',
  '--kill-child',
  '--',
  '/bin/sh',
  '-c',
  script,
  'unpack',
  ...command,
]

/**
 * GNU tar as it unpacks our stream. `--absolute-names` turns off what tar does about `..` and links, which is to make
 * links last and by inode: every name in the stream is our own and leads through no link, and two entries for one
 * path must simply follow one another.
 */
export const tarCommand: readonly string[] = [
  'tar',
  '--extract',
  '--file=-',
  '--directory=/layer',
  '--absolute-names',
  '--numeric-owner',
  '--same-owner',
  '--same-permissions',
  '--delay-directory-restore',
  '--recursive-unlink',
  '--xattrs',
  '--xattrs-include=user.overlay.opaque',
  '--no-acls',
  '--no-selinux',
  '--warning=no-timestamp',
]
