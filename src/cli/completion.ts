/** `faas completion SHELL`: a script that completes commands and options, rendered from the commands themselves. */
import { Argument, Command } from 'commander'
import type { CliContext } from './context.ts'

interface Node {
  /** The words that lead here: `` for faas itself, `vpn`, `vpn invite`. */
  readonly path: string
  /** Commands and options that may follow, with their descriptions. */
  readonly words: readonly { readonly word: string; readonly description: string }[]
}

const shells = ['bash', 'zsh', 'fish'] as const

export function completionCommand(context: CliContext, root: () => Command): Command {
  return new Command('completion')
    .description('print a completion script: source <(faas completion bash)')
    .addArgument(new Argument('<shell>', 'the shell').choices(shells))
    .action((shell: (typeof shells)[number]) => {
      const nodes = collectNodes(root(), [])
      const render = { bash: renderBash, zsh: renderZsh, fish: renderFish }[shell]
      context.stdout.write(render(nodes))
    })
}

/** Every visible command, from the top down. */
export function collectNodes(command: Command, path: readonly string[]): readonly Node[] {
  const help = command.createHelp()
  const children = help.visibleCommands(command).filter((child) => child.name() !== 'help')
  const words = [
    ...children.map((child) => ({ word: child.name(), description: child.description() })),
    ...help
      .visibleOptions(command)
      .flatMap(({ short, long, description }) =>
        [long, short]
          .filter((word) => word !== undefined && word !== null)
          .map((word) => ({ word, description })),
      ),
  ]
  return [
    { path: path.join(' '), words },
    ...children.flatMap((child) => collectNodes(child, [...path, child.name()])),
  ]
}

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** In bash and zsh alike: whether words name a command, so that options and arguments are told from it. */
const renderIsCommand = (nodes: readonly Node[]): string => `_faas_is_command() {
  case $1 in
    ${nodes
      .filter(({ path }) => path !== '')
      .map(({ path }) => quoted(path))
      .join(' | ')}) return 0 ;;
  esac
  return 1
}`

/** The words typed so far, without options, pick the list; past the last command names of files are completed. */
function renderBash(nodes: readonly Node[]): string {
  const cases = nodes.map(
    ({ path, words }) => `    ${quoted(path)}) words=${quoted(words.map(({ word }) => word).join(' '))} ;;`,
  )
  return `# bash completion for faas: source <(faas completion bash)
_faas() {
  local current=\${COMP_WORDS[COMP_CWORD]} path='' word words='' i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    [[ $word == -* ]] && continue
    _faas_is_command "\${path:+$path }$word" || break
    path=\${path:+$path }$word
  done
  case $path in
${cases.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
${renderIsCommand(nodes)}
complete -o default -F _faas faas
`
}

function renderZsh(nodes: readonly Node[]): string {
  const cases = nodes.map(({ path, words }) => {
    const entries = words.map(({ word, description }) =>
      quoted(`${word.replaceAll(':', '\\:')}:${description}`),
    )
    return `    ${quoted(path)}) entries=(${entries.join(' ')}) ;;`
  })
  return `#compdef faas
# zsh completion for faas: source <(faas completion zsh)
_faas() {
  local where='' word next
  local -a entries
  for word in \${words[2,CURRENT-1]}; do
    [[ $word == -* ]] && continue
    next="\${where:+$where }$word"
    _faas_is_command "$next" || break
    where=$next
  done
  case $where in
${cases.join('\n')}
  esac
  _describe 'faas' entries || _files
}
${renderIsCommand(nodes)}
compdef _faas faas
`
}

function renderFish(nodes: readonly Node[]): string {
  const lines = nodes.flatMap(({ path, words }) =>
    words.map(({ word, description }) => {
      const condition = `-n ${quoted(`test "$(_faas_path)" = ${JSON.stringify(path)}`)}`
      const what = word.startsWith('--')
        ? `-l ${word.slice(2)}`
        : word.startsWith('-')
          ? `-s ${word.slice(1)}`
          : `-f -a ${word}`
      return `complete -c faas ${condition} ${what} -d ${quoted(description)}`
    }),
  )
  const paths = nodes.filter(({ path }) => path !== '').map(({ path }) => quoted(path))
  return `# fish completion for faas: faas completion fish | source
function _faas_path
    set -l path ''
    for word in (commandline -opc)[2..]
        string match -q -- '-*' $word; and continue
        set -l next (string trim "$path $word")
        contains -- $next ${paths.join(' ')}; or break
        set path $next
    end
    echo $path
end
${lines.join('\n')}
`
}
