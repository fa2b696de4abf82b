/** Counters for Prometheus, in its naming: base units, `_total` for counters. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client'

/** What became of a connection: passed to an instance, refused (no slot in time, rule not in place), failed (handler). */
export type ConnectionOutcome = 'passed' | 'refused' | 'failed'

export interface Metrics {
  connectionAccepted(name: string): void
  connectionEnded(name: string, outcome: ConnectionOutcome): void
  /** `seconds` from the runtime's start to the handler's connect to its control socket. */
  instanceReady(name: string, seconds: number): void
  instances(name: string, count: number): void
  functionsDeployed(count: number): void
  forget(name: string): void
  render(): Promise<string>
}

export function createMetrics(): Metrics {
  const registers = [new Registry()]
  const labelNames = ['function'] as const
  const accepted = new Counter({
    name: 'faas_connections_accepted_total',
    help: 'Connections accepted on a function address.',
    labelNames,
    registers,
  })
  const ended = new Counter({
    name: 'faas_connections_total',
    help: 'Connections by what became of them.',
    labelNames: ['function', 'outcome'],
    registers,
  })
  const ready = new Histogram({
    name: 'faas_instance_start_seconds',
    help: 'From the start of an instance to its readiness.',
    labelNames,
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
    registers,
  })
  const instances = new Gauge({
    name: 'faas_instances',
    help: 'Instances that exist now.',
    labelNames,
    registers,
  })
  const functions = new Gauge({ name: 'faas_functions', help: 'Functions deployed.', registers })
  return {
    connectionAccepted: (name) => accepted.inc({ function: name }),
    connectionEnded: (name, outcome) => ended.inc({ function: name, outcome }),
    instanceReady: (name, seconds) => ready.observe({ function: name }, seconds),
    instances: (name, count) => instances.set({ function: name }, count),
    functionsDeployed: (count) => functions.set(count),
    forget(name) {
      for (const metric of [accepted, ready, instances]) metric.remove({ function: name })
      for (const outcome of ['passed', 'refused', 'failed']) ended.remove({ function: name, outcome })
    },
    render: () => registers[0]?.metrics() ?? Promise.resolve(''),
  }
}
