import { createServer } from 'node:http'

createServer((request, response) => {
  response.end(`node ${process.env.VERSION ?? '1'} ${request.socket.remoteAddress}\n`)
}).listen(process.env.PORT)
