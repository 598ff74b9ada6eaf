/** Where a model has no chat template: the contents of the messages, a line each. It adds no words that the model was never shown. */
export const DEFAULT_CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{{ '' if loop.last else '\\n' }}{% endfor %}";
