const config = require('../../config');

// The nodes of the site, the state of the connection to the chosen one, and the
// last messages.
Page({
  data: {nodes: [], error: '', current: '', state: '', detail: '', draft: '', messages: []},

  onLoad() {
    this.received = 0;
    this.load();
  },

  onUnload() {
    getApp().leave();
  },

  onPullDownRefresh() {
    this.load(() => wx.stopPullDownRefresh());
  },

  // The list comes from the site, so that a new node needs no new version of the
  // mini-program.
  load(done = () => {}) {
    wx.request({
      url: `https://${config.host}/site/nodes.json`,
      timeout: 10000,
      success: ({statusCode, data}) => {
        const nodes = statusCode === 200 && data ? data.nodes : null;
        if (Array.isArray(nodes)) this.setData({nodes, error: ''});
        else this.setData({error: `nodes.json: HTTP ${statusCode}`});
      },
      fail: ({errMsg}) => this.setData({error: errMsg}),
      complete: done
    });
  },

  choose(event) {
    const id = event.currentTarget.dataset.id;
    this.setData({current: id, messages: []});
    getApp().connectTo(id, {
      onState: (state, detail) => this.setData({state, detail}),
      onMessage: (data) => this.show(typeof data === 'string' ? data : `${data.byteLength} bytes`)
    });
  },

  edit(event) {
    this.setData({draft: event.detail.value});
  },

  send() {
    const {socket} = getApp().globalData;
    if (this.data.draft && socket && socket.send(this.data.draft)) this.setData({draft: ''});
  },

  show(text) {
    const message = {id: ++this.received, text};
    this.setData({messages: [message, ...this.data.messages].slice(0, 20)});
  }
});
