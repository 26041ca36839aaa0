// Browsers refuse workers on pages opened as files. There, the search runs in a hidden frame instead, which behaves as the
// search expects a worker to behave. Its name tells the offline plugin that no other host need be asked for one.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inner = this.frame.contentWindow
      this.ready = new Promise((resolve, reject) => {
        const script = inner.document.createElement("script")
        script.src = new URL(url, document.baseURI).href
        script.onload = resolve
        script.onerror = () => reject(new Error(`cannot load ${script.src}`))
        inner.postMessage = (data) => this.receive(data)
        inner.document.body.append(script)
      })
    }

    receive(data) {
      const event = new MessageEvent("message", { data })
      this.dispatchEvent(event)
      if (this.onmessage) this.onmessage(event)
    }

    postMessage(data) {
      const inner = this.frame.contentWindow
      this.ready.then(() => inner.dispatchEvent(new inner.MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
