/** From a function's record to everything that starting an instance of it takes. */
import type { ImageStore } from '../images/store.ts'
import type { FunctionName } from '../values/names.ts'
import {
  commandOf,
  environmentOf,
  type FunctionRecord,
  type ServedFunction,
  versionIdOf,
} from './function.ts'
import { scratchOf } from './scratch.ts'
import { signalNumber } from './stop-signal.ts'

/** Throws NOT_FOUND, REGISTRY_CORRUPT, COMMAND_FAILED, IMAGE_CONFIG_INVALID. */
export async function prepareVersion(
  name: FunctionName,
  record: FunctionRecord,
  images: ImageStore,
): Promise<ServedFunction> {
  const image = await images.load(record.image)
  const rootfs = await images.mountRootfs(name, image)
  const { points, etc } = await images.mountPoints(image)
  const { address, ports, contract, options } = record
  return {
    name,
    versionId: versionIdOf(record),
    address,
    ports,
    contract,
    image: record.image,
    rootfs,
    argv: commandOf(image.config),
    env: environmentOf(image, options, { name, address, ports }),
    cwd: image.config.workingDir || '/',
    user: await images.resolveUser(rootfs, image.config.user),
    scratch: scratchOf(points, options),
    etc,
    stopSignal: signalNumber(image.config.stopSignal),
    healthcheck: image.config.healthcheck,
    options,
  }
}
