import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pickImage } from './pick.ts'

const images = [
  { names: ['fibonacci:latest', 'fibonacci:1.0'] },
  { names: ['registry.example:5000/team/hello:2.0'] },
  { names: ['registry.example:5000/team/hello:latest'] },
  { names: ['docker.io/library/other:1'] },
  { names: [] },
]

const found: [pick: string, index: number][] = [
  ['fibonacci', 0],
  ['fibonacci:1.0', 0],
  ['registry.example:5000/team/hello', 2],
  ['registry.example:5000/team/hello:2.0', 1],
  ['hello', 2],
  ['other', 3],
]

for (const [pick, index] of found) {
  test(`pickImage() finds ${pick}`, () => assert.equal(pickImage(images, pick), images[index]))
}

test('pickImage() names what there is when it finds none or several', () => {
  for (const pick of [undefined, '', 'nothing', 'fibonacci:2.0']) {
    assert.throws(() => pickImage(images, pick), {
      code: 'IMAGE_AMBIGUOUS',
      message: /fibonacci:latest.*\(without a name\)/,
    })
  }
  const twice = [{ names: ['a/x:1'] }, { names: ['b/x:1'] }]
  assert.throws(() => pickImage(twice, 'x'), { code: 'IMAGE_AMBIGUOUS' })
})

test('pickImage() takes a single image whatever it is called', () => {
  const [only] = images
  assert.equal(pickImage(images.slice(0, 1), 'nothing'), only)
})
