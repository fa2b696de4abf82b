/** Documents name tests, sources and each other: all of it is there, and tests have the cases that are said. Reads files only. */
import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'

const root = join(import.meta.dirname, '../..')
const page = readFileSync(join(root, 'docs/security.md'), 'utf8')

/** `P01–P03 B54` as the cases it names. */
function casesOf(text: string): string[] {
  return [...text.matchAll(/\b([A-Z])(\d\d)(?:–[A-Z](\d\d))?\b/g)].flatMap(([, letter, first, last]) =>
    Array.from(
      { length: Number(last ?? first) - Number(first) + 1 },
      (_, index) => `${letter}${String(Number(first) + index).padStart(2, '0')}`,
    ),
  )
}

test('docs/security.md names cases that the files beside them test', () => {
  const rows = page.split('\n').filter((line) => /^\| [A-Z]\d\d/.test(line))
  assert.ok(rows.length > 10)
  for (const row of rows) {
    const [, cases = '', , files = ''] = row.split('|')
    const paths = [...files.matchAll(/`([^`]+)`/g)].map(([, path]) => path ?? '')
    const tested = paths.map((path) => readFileSync(join(root, path), 'utf8')).join('\n')
    const titles = casesOf(
      [...tested.matchAll(/[A-Z]\d\d(?:[-–]| to )[A-Z]\d\d|\b[A-Z]\d\d\b/g)]
        .map(([word]) => word.replace(/-| to /, '–'))
        .join(' '),
    )
    for (const one of casesOf(cases)) assert.ok(titles.includes(one), `${one} is not in ${paths.join(', ')}`)
  }
})

test('what documents link to, and the sources that they name, are there', () => {
  const documents = globSync(['*.md', 'docs/**/*.md'], { cwd: root })
  assert.ok(documents.length > 15)
  for (const document of documents) {
    const text = readFileSync(join(root, document), 'utf8').replaceAll(/^```[\s\S]*?^```$/gm, '')
    const links = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)[^)]*\)/g)].map(([, path]) =>
      join(dirname(document), path ?? ''),
    )
    const sources = [...text.matchAll(/`((?:[a-z-]+\/)+[\w.-]+\.(?:ts|py|sh))`/g)].map(
      ([, path]) => path ?? '',
    )
    for (const path of [...links, ...sources]) {
      assert.ok(
        [root, join(root, 'src')].some((base) => existsSync(join(base, path))),
        `${document} names ${path}, which is not there`,
      )
    }
  }
})
