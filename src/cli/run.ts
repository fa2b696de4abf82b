/** Runs one command line to its exit code. Everything that fails ends here, once. */
import { CommanderError } from 'commander'
import { toFaasError } from '../values/errors.ts'
import { exitCodeOf, exitCodes } from './exit-codes.ts'
import { printFailure } from './failure.ts'
import { createProgram, type ProgramDeps } from './program.ts'

/** `words` are the arguments after the program's name. Answers the exit code; never throws. */
export async function runCli(words: readonly string[], deps: ProgramDeps): Promise<number> {
  const { context } = deps
  try {
    await createProgram(deps).parseAsync(words, { from: 'user' })
    return exitCodes.ok.code
  } catch (error) {
    // commander has printed what it has to say.
    if (error instanceof CommanderError)
      return error.exitCode === 0 ? exitCodes.ok.code : exitCodes.usage.code
    if (context.signal.aborted) return exitCodes.interrupted.code
    const failure = toFaasError(error)
    printFailure(context, failure)
    return exitCodeOf(failure.code)
  }
}
